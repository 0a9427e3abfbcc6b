"""`fastvla models show` and `bind`, and `fastvla quantize`, on checkpoints in LeRobot's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastvla_core import cli
from fastvla_core.policy import FastVLA
from fastvla_core.quant import memory_bytes, quantized_layers

from .checkpoints import FLOW_POLICIES, POLICIES, copied, positions


@pytest.mark.parametrize("policy", POLICIES)
def test_show_explains_a_checkpoint(
    tmp_path: Path, policy: str, capsys: pytest.CaptureFixture[str]
):
    folder = copied(policy, tmp_path)
    assert cli.main(["models", "show", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["type"] == policy
    assert len(found["state"]) == len(found["action"]) == 7
    assert found["cameras of the policy"] == found["cameras"]
    mode = "QUANTILES" if policy == "pi05" else "MEAN_STD"
    assert found["statistics"] == [f"state {mode} (7)", f"action {mode} (7)"]
    assert "entries" in found["tokenizer"]
    loaded = FastVLA.from_pretrained(folder)
    count = sum(p.numel() for p in loaded.model.parameters())
    assert found["parameters"] == f"{count / 1e6:.2f} M"


def test_the_memory_that_show_tells_is_what_a_quantised_policy_takes(tmp_path: Path):
    from fastvla_core.models.describe import describe

    folder = copied("pi0", tmp_path)
    parts = describe(str(folder))["memory of the weights"].split(", ")
    told = {name: float(size) for name, size, _ in map(str.split, parts)}
    for mode, name in (("int8", "int8"), ("nf4", "NF4")):
        model = FastVLA.from_pretrained(folder, quantization=mode).model
        plain = sum(t.numel() * t.element_size() for n, t in model.named_parameters())
        packed = memory_bytes(model) - plain
        assert (packed + plain / 2) / 1e6 == pytest.approx(told[name], abs=0.06)


@pytest.mark.parametrize("mode", ["nf4", "int8"])
@pytest.mark.parametrize("policy", FLOW_POLICIES)
def test_policies_quantise_save_and_load(tmp_path: Path, policy: str, mode):
    folder = copied(policy, tmp_path)
    full = positions(FastVLA.from_pretrained(folder))
    small = FastVLA.from_pretrained(folder, quantization=mode)
    large = set(quantized_layers(small.model))
    assert "expert.layers.0.mlp.up_proj" in large
    assert not {"action_in", "action_out", "time_in", "state_in"} & large
    attention = {f"expert.layers.0.self_attn.{name}_proj" for name in "qkv"}
    assert attention & large == (attention if mode == "int8" else set())
    deviation = np.abs(positions(small) - full).max()
    assert 0 < deviation < (1.5 if mode == "nf4" else 0.1)
    small.save_pretrained(tmp_path / "small")
    again = FastVLA.from_pretrained(tmp_path / "small")
    assert again.quantization == mode
    assert np.array_equal(positions(again), positions(small))


def test_quantize_writes_a_checkpoint_and_says_what_it_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["quantize", str(copied("pi0", tmp_path)), "--mode", "int8"]
    assert cli.main([*arguments, "--out", str(tmp_path / "small"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cosine"]["worst"] > 0.99
    assert report["bytes"]["after"] < report["bytes"]["before"]


def test_bind_writes_a_checkpoint_for_a_robot(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, out = copied("smolvla", tmp_path), tmp_path / "bound"
    bind = ["models", "bind", str(folder), "--contract", "tabletop", "--out", str(out)]
    assert cli.main(bind) == 1
    assert "--camera top=CAMERA" in capsys.readouterr().err
    assert cli.main([*bind, "--camera", "top=front", "--dt", "0.1"]) == 0
    assert cli.main(["models", "show", str(out), "--json"]) == 0
    printed = capsys.readouterr().out
    found = json.loads(printed[printed.index("{") :])
    assert found["robot"] == "tabletop"
    assert found["cameras"] == ["front", "wrist"]
    assert found["cameras of the policy"] == ["top = front", "wrist"]
    assert found["chunk"].startswith("10 steps of 0.1 s")
    with pytest.raises(SystemExit):
        cli.main([*bind, "--camera", "top"])
