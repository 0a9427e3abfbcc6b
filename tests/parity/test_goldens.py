"""Every stored case of every policy: what the reference computed, we compute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvla_core.cli import main
from fastvla_core.models.parity.run import as_text, run_parity

DATA = Path(__file__).parent / "data"
POLICIES = ("pi0", "pi05", "pi0_fast", "smolvla", "act", "diffusion", "diffusion_ddim")
# A weight deep in the network, by the end of its name.
DEEP = {
    "act": "encoder.layers.1.linear2.weight",
    "diffusion": "unet.mid_modules.1.conv2.block.0.weight",
    "diffusion_ddim": "rgb_encoder.1.backbone.7.0.bn2.weight",
}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_stored_case_is_met(policy: str):
    results = run_parity(DATA / policy)
    assert len(results) >= 2
    assert all(result.passed for result in results), as_text(results)
    compared = [d for result in results for d in result.deviations]
    assert not [d.name for d in compared if d.passed is None]
    assert {"out/actions", "train/loss"} <= {d.name for d in compared}


def _copy(tmp_path: Path, policy: str) -> Path:
    return Path(shutil.copytree(DATA / policy, tmp_path / policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_another_weight_shows(tmp_path: Path, policy: str):
    folder = _copy(tmp_path, policy)
    path = folder / "checkpoint/model.safetensors"
    weights = load_file(path)
    end = DEEP.get(policy, "layers.1.mlp.down_proj.weight")
    name = next(n for n in weights if n.endswith(end))
    weights[name] = weights[name] * 1.01
    save_file(weights, path)
    assert not all(result.passed for result in run_parity(folder))


def test_one_wrong_token_or_a_nan_is_a_failure(tmp_path: Path):
    folder = _copy(tmp_path, "pi0_fast")
    path = folder / "golden.safetensors"
    stored = load_file(path)
    stored["all_cameras/out/generated_token_ids"][0, 0] += 1
    stored["one_camera_missing/out/actions"][0, 0, 0] = torch.nan
    save_file(stored, path)
    failed = {r.case for r in run_parity(folder) if not r.passed}
    assert failed == {"all_cameras", "one_camera_missing"}


def test_the_command_prints_errors_per_tensor_and_exits_by_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["models", "parity", str(DATA / "pi05"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    assert report["cases"][0]["tensors"]["out/actions"]["absolute"] <= 1e-5
    folder = _copy(tmp_path, "pi05")
    stored = load_file(folder / "golden.safetensors")
    stored["all_cameras/mid/v_t"][0] += 0.01
    save_file(stored, folder / "golden.safetensors")
    assert main(["models", "parity", str(folder)]) == 1
    assert "mid/v_t: error" in capsys.readouterr().out
    assert main(["models", "parity", str(tmp_path / "nothing")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["models", "parity", str(tmp_path / "empty")]) == 2
    assert "no stored cases" in capsys.readouterr().err
