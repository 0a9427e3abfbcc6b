from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fastvla_core import cli
from fastvla_core.models.describe import describe
from fastvla_core.policy import FastVLA

from .tiny import tiny_policy


def test_show_explains_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tiny_policy().save_pretrained(tmp_path)
    assert cli.main(["models", "show", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["type"] == "fastvla_flow"
    assert found["cameras"] == ["front", "wrist"]
    assert found["relative to the state"] == ["joint1", "joint2"]
    assert found["chunk"] == "4 steps of 0.1 s, 2 executed per inference"
    assert found["precision"] == "F32"


@pytest.mark.parametrize(("mode", "name"), [("nf4", "NF4 ("), ("int8", "int8 (")])
def test_show_tells_how_the_weights_are_stored(tmp_path: Path, mode, name: str):
    tiny_policy().save_pretrained(tmp_path / "full")
    policy = FastVLA.from_pretrained(tmp_path / "full", quantization=mode)
    policy.save_pretrained(tmp_path / mode)
    assert describe(str(tmp_path / mode))["precision"].startswith(name)


def test_show_of_a_damaged_checkpoint_fails_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tiny_policy().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert cli.main(["models", "show", str(tmp_path)]) == 1
    assert "truncated or damaged" in capsys.readouterr().err


def test_list_prints_types_and_presets(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["models", "list"]) == 0
    printed = capsys.readouterr().out
    assert "fastvla_flow" in printed
    assert "film_conv, vit" in printed
    assert "bins, fast, flow, regression" in printed


def test_show_names_a_weight_that_is_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    policy = tiny_policy()
    with torch.no_grad():
        policy.model.expert.action_out.weight[0, 0] = float("nan")
    policy.save_pretrained(tmp_path)
    assert cli.main(["models", "show", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "'expert.action_out.weight'" in error
    assert "NaN" in error


def test_show_without_weights_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tiny_policy().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert cli.main(["models", "show", str(tmp_path)]) == 1
    assert f"{tmp_path / 'model.safetensors'} is missing" in capsys.readouterr().err
