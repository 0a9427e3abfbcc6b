"""Layers and whole policies give with their kernels switched on what they give without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastvla_core.kernels import switch
from fastvla_core.layers.attention import Attention, AttentionShape, KeyValue, attend
from fastvla_core.layers.mlp import GatedMLP
from fastvla_core.layers.residual import add_gated, add_norm_relu, norm_relu
from fastvla_core.layers.rope import rope_table
from fastvla_core.policy import FastVLA
from fastvla_core.quant import Nf4Linear
from tests.core.kernels.triton_cases.tolerance import assert_close, seeded, with_gradients
from tests.core.models.lerobot.checkpoints import change_json, copied

pytest.importorskip("triton")
pytestmark = pytest.mark.gpu

Turn = Callable[[str], None]
SHAPE = AttentionShape(heads=4, kv_heads=2, head_dim=16)


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turn]:
    """Turns on the kernels that it is called with."""

    def names(value: str) -> None:
        monkeypatch.setenv("FASTVLA_KERNELS", value)
        switch.switched_on.cache_clear()

    yield names
    switch.switched_on.cache_clear()


def placed(module: nn.Module, device: torch.device) -> nn.Module:
    for index, parameter in enumerate(module.parameters()):
        parameter.data = seeded(*parameter.shape, seed=index, device=device, dtype=torch.float32)
        parameter.data *= 0.3
    return module


def inputs(*shapes: tuple[int, ...], device: torch.device) -> list[Tensor]:
    return [
        seeded(*shape, seed=90 + i, device=device, dtype=torch.float32).requires_grad_()
        for i, shape in enumerate(shapes)
    ]


# The one whose norms are steered, and the one with cross-attention; pi0 has nothing of its own.
@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("name", ["pi05", "smolvla"])
def test_a_whole_policy_on_all_its_kernels(name: str, tmp_path: Path, turn: Turn) -> None:
    if torch.cuda.is_available():
        pytest.skip("policies are loaded onto the CPU here; the interpreter serves that")
    folder = copied(name, tmp_path)
    change_json(folder / "config.json", num_steps=2, num_inference_steps=2)
    policy = FastVLA.from_pretrained(folder)
    observation = policy.processor.random_observation(0)
    turn("")
    plain = policy.infer(observation).positions
    turn("all")
    found = policy.infer(observation).positions
    assert not np.array_equal(found, plain), "no kernel ran"
    np.testing.assert_allclose(found, plain, atol=1e-4)


def test_a_layer_that_is_more_than_a_product_keeps_its_own_forward(
    turn: Turn, device: torch.device
) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    attention = placed(Attention(24, SHAPE), device)
    attention.v_proj = placed(Doubled(24, 32, bias=False), device)
    x = seeded(1, 3, 24, seed=0, device=device, dtype=torch.float32)
    rope = rope_table(torch.arange(3, device=device), head_dim=16)
    with torch.no_grad():
        turn("")
        plain, _ = attention(x, rope, None)
        turn("qkv_rope")
        found, _ = attention(x, rope, None)
    assert torch.equal(found, plain)


def test_a_layer_that_somebody_listens_to_is_called(turn: Turn, device: torch.device) -> None:
    heard: list[nn.Module] = []
    mlp = placed(GatedMLP(8, 16), device)
    mlp.get_submodule("gate_proj").register_forward_hook(lambda layer, *_: heard.append(layer))
    turn("gated_mlp")
    with torch.no_grad():
        mlp(seeded(1, 8, seed=0, device=device, dtype=torch.float32))
    assert heard


def test_a_layer_in_nf4_activates_in_its_own_kernel(turn: Turn, device: torch.device) -> None:
    mlp = placed(GatedMLP(64, 32), device)
    for name in ("gate_proj", "up_proj"):
        mlp.set_submodule(name, Nf4Linear.from_linear(mlp.get_submodule(name)).to(device))
    x = seeded(3, 64, seed=0, device=device, dtype=torch.float32)
    with torch.no_grad():
        turn("")
        plain = mlp(x)
        turn("all")
        torch.testing.assert_close(mlp(x), plain, atol=1e-4, rtol=1e-4)


def test_words_learn_from_images_through_the_kernels(turn: Turn, device: torch.device) -> None:
    layer = placed(nn.Linear(32, 24), device)
    gate = torch.full((1,), 0.1, device=device, requires_grad=True)
    leaves = inputs((2, 5, 24), (2, 4, 5, 8), (2, 2, 9, 8), (2, 2, 9, 8), device=device)
    learned = [*leaves, *layer.parameters(), gate]
    allowed = torch.ones(2, 1, 1, 9, dtype=torch.bool, device=device)
    allowed[1, ..., 3:6] = False

    def run() -> list[Tensor]:
        x, query, key, value = leaves
        mixed = attend(query, KeyValue(key, value), allowed).transpose(1, 2).flatten(2)
        return with_gradients(add_gated(x, mixed, layer, gate), learned, torch.float32)

    turn("")
    plain = run()
    turn("cross_attention")
    found = run()
    assert "GatedProjection" in str(found[0].grad_fn)
    assert_close(found, plain, torch.float32)


def test_a_residual_mlp_learns_through_the_kernels(turn: Turn, device: torch.device) -> None:
    norms = [placed(nn.LayerNorm(16), device) for _ in range(2)]
    layers = [placed(nn.Linear(16, 16), device) for _ in range(2)]
    (x,) = inputs((7, 16), device=device)
    learned = [x, *(p for module in (*norms, *layers) for p in module.parameters())]

    def run() -> list[Tensor]:
        first = norm_relu(x, norms[0], layers[0])
        return with_gradients(add_norm_relu(first, norms[1], layers[1]), learned, torch.float32)

    turn("")
    plain = run()
    turn("residual_mlp")
    found = run()
    assert "ResidualBlock" in str(found[0].grad_fn)
    assert_close(found, plain, torch.float32)
