"""A checkpoint meets a robot: cameras and columns are mapped, and what cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastvla_core.contract_binding import RobotBinding
from fastvla_core.errors import ContractError
from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.types import Observation

from .checkpoints import copied

_CAMERAS = {"base_0_rgb": "front", "left_wrist_0_rgb": "wrist", "right_wrist_0_rgb": None}


def _observation() -> Observation:
    random = np.random.default_rng(0)
    images = {n: random.integers(0, 256, (96, 96, 3), dtype=np.uint8) for n in ("front", "wrist")}
    return Observation(
        stamp_ns=1, task="pick up the red cube", images=images, state=np.zeros(7, np.float32)
    )


def test_a_bound_checkpoint_serves_its_robot_and_remembers_it(tmp_path: Path):
    contract = load_contract("tabletop")
    binding = RobotBinding(cameras=_CAMERAS, action_dt_s=0.1)
    policy = FastVLA.from_pretrained(copied("pi0", tmp_path), contract=contract, binding=binding)
    chunk = policy.infer(_observation())
    assert chunk.names == contract.action_names
    assert chunk.dt_s == 0.1
    assert policy.config.cameras == ("front", "wrist")
    policy.save_pretrained(tmp_path / "bound")
    again = FastVLA.from_pretrained(tmp_path / "bound", contract=contract)
    assert np.array_equal(again.infer(_observation()).positions, chunk.positions)
    with pytest.raises(ContractError, match="belongs to a robot already"):
        FastVLA.from_pretrained(tmp_path / "bound", binding=binding)


@pytest.mark.parametrize(
    ("policy", "cameras", "said"),
    [
        ("pi0", {}, r"camera 'base_0_rgb' is no policy camera of contract 'tabletop'"),
        ("pi0", {**_CAMERAS, "left_wrist_0_rgb": None}, "no camera of the policy takes 'wrist'"),
        ("pi0", {"base": "front"}, "the policy has no camera 'base'"),
        ("smolvla", {"top": "fron"}, r"camera 'top' is no policy camera .*front, wrist"),
    ],
)
def test_cameras_without_a_partner_are_refused(tmp_path: Path, policy, cameras, said):
    with pytest.raises(ContractError, match=said):
        FastVLA.from_pretrained(
            copied(policy, tmp_path),
            contract=load_contract("tabletop"),
            binding=RobotBinding(cameras=cameras),
        )


def test_another_number_of_joints_is_refused(tmp_path: Path):
    import dataclasses

    contract = load_contract("tabletop")
    smaller = dataclasses.replace(contract, joints=contract.joints[:-1])
    with pytest.raises(ContractError, match="state has 7 values, the contract's 6"):
        FastVLA.from_pretrained(
            copied("pi0", tmp_path), contract=smaller, binding=RobotBinding(cameras=_CAMERAS)
        )


def test_without_a_contract_cameras_keep_their_names_or_take_given_ones(tmp_path: Path):
    folder = copied("smolvla", tmp_path)
    assert FastVLA.from_pretrained(folder).config.cameras == ("top", "wrist")
    policy = FastVLA.from_pretrained(folder, binding=RobotBinding(cameras={"top": "front"}))
    chunk = policy.infer(_observation())
    assert chunk.names == tuple(f"action_{i}" for i in range(7))
    assert chunk.dt_s == pytest.approx(1 / 30)
