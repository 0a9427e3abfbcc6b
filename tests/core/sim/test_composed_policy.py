"""A composed policy with random weights drives the simulated robot, and stays within its limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvla_core.models.statistics import MeanStd, Statistics
from fastvla_core.policy import FastVLA, policy_config
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.runtime.merging import ChunkMerge
from fastvla_core.sim import sample_task, timed_rollout
from fastvla_core.sim.timed_rollout import Timing, timed_rollouts

from ..models.vla.tiny import head, write_backbone

CONTRACT = load_contract("tabletop")


def composed(folder: Path, kind: str) -> FastVLA:
    import torch

    config = policy_config(
        "vla",
        contract=CONTRACT,
        backbone=str(write_backbone(folder, "smolvlm")),
        head=head(kind, folder=folder),
        image_resolution=(28, 28),
        chunk_size=8,
    )
    state, steps = len(config.state_names), config.chunk_size
    # About what the table-top's recordings have: radians, and millimetres for the gripper.
    spread = torch.tensor([0.2] * (state - 1) + [0.01])
    statistics = Statistics(
        state=MeanStd(torch.zeros(state), torch.ones(state)),
        action=MeanStd(torch.zeros(steps, state), spread.expand(steps, state)),
    )
    return FastVLA.from_config(config, statistics=statistics)


@pytest.mark.parametrize(("kind", "merge"), [("flow", "rtc"), ("bins", "switch"), ("fast", "auto")])
def test_random_weights_move_the_robot_within_its_limits(
    kind: str, merge: ChunkMerge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ticks = dict.fromkeys(timed_rollout.HORIZON_TICKS, 15)
    monkeypatch.setattr(timed_rollout, "HORIZON_TICKS", ticks)
    policy = composed(tmp_path, kind)
    timing = Timing(merge=merge, latency_s=0.1, conditionings=policy.conditionings)
    (result,) = timed_rollouts(
        lambda observations, prefixes: policy.infer_batch(observations, prefixes=prefixes),
        [(sample_task("reach", 3), 3)],
        contract=CONTRACT,
        timing=timing,
    )
    assert 0.01 < result.peak_velocity <= 1
    assert result.peak_acceleration <= 1
