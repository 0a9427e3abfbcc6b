"""Products in 8 bits: codes that cannot overflow, the network as it was, actions near its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import onnx

from fastvla_core.engines.eight_bits import LARGEST_CODE, EightBitLinear, in_eight_bits
from fastvla_core.engines.onnx import OnnxEngine, cache_folder
from fastvla_core.quant import quantizable_layers, quantize_module, quantized_layers

from ..models.tiny import tiny_policy
from .policies import observations, policy_of


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_codes_stand_for_the_weight_to_half_a_step():
    layer = nn.Linear(33, 7)
    with torch.no_grad():
        layer.weight[3] = 0.0
    codes = EightBitLinear(layer)
    assert codes.codes_kn.shape == (33, 7)
    assert int(codes.codes_kn.abs().max()) == LARGEST_CODE
    meant_kn = codes.codes_kn.float() * codes.scale_n
    off_kn = (meant_kn - layer.weight.T).abs()
    assert bool((off_kn <= 0.5001 * codes.scale_n).all())
    assert bool((meant_kn[:, 3] == 0).all())


def test_the_layers_of_the_network_come_back_packed_or_not():
    model = tiny_policy().model
    plain = {name: model.get_submodule(name) for name in quantizable_layers(model)}
    kept = set(plain) - set(quantizable_layers(model, skip=model.full_precision))
    assert kept
    with in_eight_bits(model):
        standing = {n for n, m in model.named_modules() if isinstance(m, EightBitLinear)}
        assert standing == set(plain) - kept
    assert all(model.get_submodule(name) is layer for name, layer in plain.items())
    quantize_module(model, "nf4", skip=model.full_precision)
    packed = quantized_layers(model)
    with in_eight_bits(model):
        assert not quantized_layers(model)
    assert quantized_layers(model) == packed


@pytest.mark.slow
@pytest.mark.parametrize("bias", [True, False])
def test_the_largest_products_are_not_cut_off(bias, tmp_path: Path):
    layer = nn.Linear(256, 24, bias=bias).requires_grad_(False)
    layer.weight.fill_(1.0)
    layer.weight[1::2] = -1.0
    # One small value, so that all others are coded by the largest number.
    x = torch.ones(1, 5, 256)
    x[..., 0] = 0.0
    engine = OnnxEngine(tiny_policy().model)
    run = engine.converted(EightBitLinear(layer).eval(), (x,))
    (found,) = run((x,))
    np.testing.assert_allclose(found.numpy(), layer(x).numpy(), rtol=1e-3, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "quantization", "expected"),
    [
        ("flow", "nf4", {"DynamicQuantizeMatMul"}),
        # In its vision tower every token sees every other.
        ("smolvla", None, {"DynamicQuantizeMatMul", "MultiHeadAttention"}),
    ],
)
def test_the_actions_stay_near_those_of_the_network(kind, quantization, expected, tmp_path: Path):
    folder = tmp_path / "policy"
    policy = policy_of(kind, folder, engine="onnxruntime_int8", quantization=quantization)
    reference = policy_of(kind, folder, quantization=quantization)
    cosines = [
        _cosine(policy.infer(o).positions, reference.infer(o).positions)
        for o in observations(reference)
    ]
    # Measured: 0.9993 and more.
    assert min(cosines) > 0.998
    assert expected <= set(_nodes())
    # What was converted for 8 bits is nothing that `auto` would take.
    policy.use_engine("auto")
    assert policy.engine.name == "eager"


def _nodes() -> Iterator[str]:
    for path in cache_folder().rglob("graph.onnx"):
        yield from (node.op_type for node in onnx.load(path).graph.node)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
