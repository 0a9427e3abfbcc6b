"""ONNX Runtime: the same actions, graphs that are kept, and what makes them anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from fastvla_core.engines.onnx import cache_folder

from ..models.tiny import tiny_policy
from .policies import furthest, observations, policy_of


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "quantization"), [("flow", "nf4"), ("smolvla", None), ("pi0", None), ("pi05", "int8")]
)
def test_the_actions_are_those_of_the_network(kind, quantization, tmp_path: Path):
    folder = tmp_path / "policy"
    policy = policy_of(kind, folder, engine="onnxruntime", quantization=quantization)
    reference = policy_of(kind, folder, quantization=quantization)
    assert policy.quantization == quantization
    assert furthest(policy, reference) < 1e-4
    seen = observations(policy)[:3]
    for chunk, observation in zip(policy.infer_batch(seen), seen, strict=True):
        alone = policy.infer(observation).positions
        np.testing.assert_allclose(chunk.positions, alone, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_graphs_are_kept_until_weights_change_and_auto_takes_what_is_kept(tmp_path: Path):
    folder = tmp_path / "policy"
    assert policy_of("flow", folder, engine="auto").engine.name == "eager"
    policy_of("flow", folder, engine="onnxruntime")
    kept = {path: path.stat().st_mtime_ns for path in cache_folder().rglob("graph.onnx")}
    assert len(kept) == 2
    again = policy_of("flow", folder, engine="auto")
    assert again.engine.name == "onnxruntime"
    assert {p: p.stat().st_mtime_ns for p in cache_folder().rglob("graph.onnx")} == kept
    other = tiny_policy(tokenizer_max_length=48, seed=1)
    other.use_engine("auto")
    assert other.engine.name == "eager"
    # Packed weights are others, although they came from the same ones.
    assert policy_of("flow", folder, engine="auto", quantization="nf4").engine.name == "eager"
