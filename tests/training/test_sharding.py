"""Weights in parts: every family's gradients stay what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from fastvla_core.contract_binding import RobotBinding
from fastvla_core.errors import DependencyError
from fastvla_core.models.policies.vla.config import VLAConfig
from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot_adaptation import adapted_policy
from tests.core.models.lerobot.checkpoints import DATA
from tests.core.models.vla import tiny
from training.bench.training_speed import random_cache
from training.dataset import StepDataset
from training.processes import Processes
from training.sharding import layers_of, require_sharding, whole
from training.shared_loss import shared_loss

CONTRACT, CPU = load_contract("tabletop"), torch.device("cpu")


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """One process that shares with itself: parts are gathered and let go of all the same."""
    place = f"file://{tmp_path}/rendezvous"
    distributed.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def diffusion(_: Path) -> FastVLA:
    binding = RobotBinding(action_dt_s=0.1)
    folder = DATA / "diffusion" / "checkpoint"
    return FastVLA.from_pretrained(folder, contract=CONTRACT, binding=binding)


def adapted(name: str) -> Callable[[Path], FastVLA]:
    def make(_: Path) -> FastVLA:
        return adapted_policy(
            str(DATA / name / "checkpoint"),
            contract=CONTRACT,
            dt_s=0.1,
            state_ns=torch.linspace(-1, 1, 70).view(10, 7),
            actions_nta=torch.linspace(-1, 1, 280).view(10, 4, 7),
            floor_a=torch.full((7,), 0.02),
        )

    return make


def composed(head: str, attention: str) -> Callable[[Path], FastVLA]:
    def make(folder: Path) -> FastVLA:
        backbone = tiny.write_backbone(folder, "smolvlm")
        return tiny.vla_policy(backbone, head=tiny.head(head, attention=attention))

    return make


def batch(policy: FastVLA) -> dict[str, torch.Tensor]:
    config = policy.config
    dataset = StepDataset(
        random_cache(policy, frames=8),
        cameras=config.cameras,
        chunk_size=config.chunk_size,
        past_steps=len(policy.history_s),
    )
    drawn = dataset.batch(np.arange(2))
    return policy.training_batch(
        images=drawn.images,
        image_mask=drawn.image_mask,
        state=drawn.state,
        actions=drawn.actions,
        tasks=drawn.tasks,
        action_is_pad=drawn.action_is_pad,
        earlier=drawn.earlier,
    )


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(diffusion, id="stacks-of-stacks"),
        pytest.param(adapted("pi05"), id="layers-called-by-other-names"),
        pytest.param(composed("flow", "joint"), id="keys-and-values-left-in-a-cache"),
        pytest.param(composed("regression", "cross"), id="a-head-that-reads-outputs"),
    ],
)
def test_gradients_in_parts_are_those_of_the_whole(
    make: Callable[[Path], FastVLA], tmp_path: Path, process_group: None
):
    plain, parted = make(tmp_path), make(tmp_path)
    given = tiny.batch(plain) if isinstance(plain.config, VLAConfig) else batch(plain)
    losses = [
        shared_loss(plain.model.train(), Processes(), device=CPU),
        shared_loss(parted.model.train(), Processes(0, 2), device=CPU, parallel="fsdp"),
    ]
    for _ in range(2):
        values = []
        for loss in losses:
            loss.zero_grad()
            torch.manual_seed(0)
            values.append(loss(given, torch.Generator().manual_seed(0)))
            values[-1].backward()
        assert values[0] == values[1]
    assert layers_of(parted.model)
    found = dict(parted.model.named_parameters())
    for name, parameter in plain.model.named_parameters():
        if parameter.grad is not None:
            grad = found[name].grad
            assert grad is not None, name
            torch.testing.assert_close(whole(grad), parameter.grad, atol=1e-6, rtol=1e-4)


def test_the_outermost_layers_that_are_called_are_gathered():
    def stack(*layers: nn.Module) -> nn.ModuleList:
        return nn.ModuleList(layers)

    inner = nn.Sequential(nn.Linear(1, 1), stack(nn.Linear(1, 1), nn.Linear(1, 1)))
    outer = stack(inner, nn.Linear(1, 1))
    first, second = stack(nn.Linear(1, 1), nn.Identity()), stack(nn.Linear(1, 1), nn.ReLU())
    nested = stack(first, second)
    alone = stack(nn.Linear(1, 1))
    found = layers_of(nn.ModuleDict({"a": outer, "b": nested, "c": alone}))
    assert [id(layer) for layer in found] == [
        id(layer) for layer in (inner, outer[1], first[0], second[0])
    ]


def test_a_pytorch_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "__version__", "2.12.1+cpu")
    with pytest.raises(DependencyError, match=r"needs PyTorch 2\.13, this is 2\.12\.1"):
        require_sharding()
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    require_sharding()
