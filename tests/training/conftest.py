"""Small robots and small episodes for the tests of training."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract
from training.bags.writer import EXPERT_TOPIC, EpisodeWriter

REAL_BAGS = Path(
    os.environ.get("FASTVLA_REAL_BAGS", Path(__file__).parents[2].parent / "shared" / "bags")
)
START_NS = 5_000_000_000


@pytest.fixture(scope="session")
def contract() -> RobotContract:
    """The table-top robot with tiny cameras."""
    full = load_contract("tabletop")
    cameras = tuple(dataclasses.replace(c, width=16, height=12) for c in full.cameras)
    return dataclasses.replace(full, cameras=cameras)


@pytest.fixture(scope="session")
def real_bags() -> Path:
    """Recordings that nobody here wrote; see FASTVLA_REAL_BAGS."""
    if not REAL_BAGS.is_dir():
        pytest.skip("FASTVLA_REAL_BAGS is not there")
    return REAL_BAGS


@pytest.fixture
def write_episode(tmp_path: Path, contract: RobotContract) -> Callable[..., Path]:
    """Writes an episode of random pictures; joints and commands count up by 0.01 a frame."""

    def write(
        name: str = "episode",
        *,
        frames: int = 10,
        period_ns: int = 100_000_000,
        outcome: str = "success",
        instruction: str = "pick up the red cube",
        leave_out: Callable[[str, int], bool] = lambda stream, k: False,
        jitter_ns: int = 0,
        clean_offset: float | None = None,
    ) -> Path:
        random, noise = np.random.default_rng(len(name)), np.random.default_rng(1)
        writer = EpisodeWriter(tmp_path / name, contract=contract, instruction=instruction)
        for k in range(frames):
            stamp = START_NS + k * period_ns
            for camera in contract.policy_cameras:
                pixels = random.integers(0, 255, (camera.height, camera.width, 3), np.uint8)
                if not leave_out(camera.name, k):
                    late = int(noise.integers(-jitter_ns, jitter_ns + 1))
                    writer.image(camera.name, stamp_ns=stamp + late, image=pixels)
            if not leave_out("joint_states", k):
                writer.joint_state(
                    contract.state_names, stamp_ns=stamp, positions=np.full(7, 0.01 * k)
                )
            if leave_out("command", k):
                continue
            target = np.full(7, 0.01 * (k + 1))
            duration_s = period_ns / 1e9
            writer.command(
                contract.action_names, stamp_ns=stamp, positions=target, duration_s=duration_s
            )
            if clean_offset is not None:
                writer.command(
                    contract.action_names,
                    stamp_ns=stamp,
                    positions=target + clean_offset,
                    duration_s=duration_s,
                    topic=EXPERT_TOPIC,
                )
        return writer.close(outcome)

    return write
