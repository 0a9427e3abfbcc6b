"""`fastvla quantize`: what is written loads, the numbers are true, mistakes are named."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastvla_core.errors import CheckpointError, QuantError
from fastvla_core.policy import FastVLA
from fastvla_core.quant import command, memory_bytes
from tests.core.models.tiny import observation, tiny_policy


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "full"
    tiny_policy().save_pretrained(folder)
    return folder


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


@pytest.mark.parametrize("mode", ["nf4", "int8"])
def test_the_written_checkpoint_loads_and_acts_alike(
    checkpoint: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = checkpoint.parent / "small"
    assert run(str(checkpoint), "--mode", mode, "--out", str(out), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    full, packed = FastVLA.from_pretrained(checkpoint), FastVLA.from_pretrained(out)
    assert packed.quantization == report["mode"] == mode
    assert report["bytes"] == {
        "before": memory_bytes(full.model),
        "after": memory_bytes(packed.model),
    }
    assert report["bytes"]["after"] < report["bytes"]["before"]
    parts = report["parts"].values()
    assert sum(part["before"] for part in parts) <= report["bytes"]["before"]
    assert 0.8 < report["cosine"]["worst"] <= report["cosine"]["mean"] <= 1
    assert packed.infer(observation()).positions.shape == (4, 3)


def test_the_cosine_sees_a_broken_policy(checkpoint: Path) -> None:
    full, other = FastVLA.from_pretrained(checkpoint), tiny_policy(seed=1)
    assert command.compare(full, full) == pytest.approx({"worst": 1, "mean": 1})
    assert command.compare(full, other)["worst"] < 0.9


def test_people_get_a_table(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(str(checkpoint), "--out", str(checkpoint.parent / "small"))
    text = capsys.readouterr().out
    assert "before" in text
    assert "worst" in text
    assert "prefix.vision" in text


def test_a_quantised_checkpoint_is_not_quantised_again(checkpoint: Path) -> None:
    small = checkpoint.parent / "small"
    command.quantize_checkpoint(str(checkpoint), mode="nf4", out=small)
    with pytest.raises(QuantError, match="quantised already"):
        command.quantize_checkpoint(str(small), mode="nf4", out=checkpoint.parent / "smaller")


def test_the_checkpoint_itself_is_not_overwritten(checkpoint: Path) -> None:
    before = (checkpoint / "model.safetensors").read_bytes()
    with pytest.raises(QuantError, match="is the checkpoint itself"):
        command.quantize_checkpoint(str(checkpoint), mode="nf4", out=checkpoint / ".." / "full")
    assert (checkpoint / "model.safetensors").read_bytes() == before


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        command.quantize_checkpoint(str(tmp_path / "none"), mode="nf4", out=tmp_path / "out")


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, fastvla_core.quant.command; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_checkpoint_with_a_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    policy = tiny_policy()
    with torch.no_grad():
        policy.model.expert.action_out.bias[0] = float("inf")
    policy.save_pretrained(tmp_path / "full")
    with pytest.raises(QuantError, match=r"'expert\.action_out\.bias' holds NaN or infinity"):
        command.quantize_checkpoint(str(tmp_path / "full"), mode="nf4", out=tmp_path / "small")
    assert not (tmp_path / "small").exists()
