"""What a policy depends on, and what may change under it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fastvla_core.robot.compatibility import policy_differences
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract, parse_contract

TRAINED = load_contract("tabletop")


def changed(*edits: tuple[str, Any]) -> RobotContract:
    """The table-top robot with other values at dotted keys; None removes the key."""
    data = copy.deepcopy(TRAINED.to_dict())
    for path, value in edits:
        *folders, key = path.split(".")
        at = data
        for folder in folders:
            at = at[folder]
        if value is None:
            del at[key]
        else:
            at[key] = value
    return parse_contract(data)


def joint(name: str, **limits: float) -> tuple[str, dict[str, float]]:
    return f"joints.{name}", {**TRAINED.to_dict()["joints"][name], **limits}


@pytest.mark.parametrize(
    "edits",
    [
        [("name", "cell_7")],
        [("control_rate_hz", 125.0)],
        [("outputs.interface", "joint_jog"), ("outputs.topic", "servo_node/delta_joint_cmds")],
        [("gripper.interface", "gripper_command"), ("gripper.action", "hand/gripper_cmd")],
        [("cameras.scene", None)],
        [("cameras.scene.width", 640), ("cameras.scene.encoding", "bgr8")],
        [("cameras.scene.policy", True)],
        [("cameras.front.transport", "compressed"), ("cameras.front.topic", "cam0/image_raw")],
        [("cameras.front.width", 640), ("cameras.front.height", 480)],
        [("cameras.wrist.max_age_s", 0.5)],
        [("watchdog.timeout_s", 0.1), ("sync.max_skew_s", 0.02)],
        [joint("joint1", lower=-1.0, upper=1.0, max_velocity=0.5, max_acceleration=2.0)],
        [("gripper.upper", 0.03), ("gripper.max_velocity", 0.1)],
    ],
)
def test_what_the_policy_does_not_see_may_change(edits):
    served = changed(*edits)
    assert served != TRAINED
    assert policy_differences(served, TRAINED) == []


@pytest.mark.parametrize(
    ("edits", "line"),
    [
        ([("cameras.wrist", None)], "cameras.wrist: (absent) here, a camera of the policy there"),
        ([("cameras.wrist.policy", False)], "cameras.wrist.policy: False here, True there"),
        (
            [("cameras.wrist.required", False)],
            "cameras.wrist.required: False here, True there: the policy cannot do without it",
        ),
        (
            [("cameras.wrist.kind", "depth"), ("cameras.wrist.encoding", "16UC1")],
            "cameras.wrist.kind: 'depth' here, 'color' there",
        ),
        ([joint("joint1", upper=3.0)], "joints.joint1.upper: 3.0 here, 2.8 there"),
        ([joint("joint2", lower=-1.6)], "joints.joint2.lower: -1.6 here, -1.5 there"),
        ([("gripper.upper", 0.085)], "gripper.upper: 0.085 here, 0.042 there"),
    ],
)
def test_what_the_policy_depends_on_is_named(edits, line: str):
    assert policy_differences(changed(*edits), TRAINED) == [line]


def test_joints_and_their_order_must_agree():
    data = TRAINED.to_dict()
    data["joints"]["elbow"] = data["joints"].pop("joint6")
    (line,) = policy_differences(parse_contract(data), TRAINED)
    assert line.startswith("joints: ['joint1'")
    assert "elbow" in line
    swapped = TRAINED.to_dict()
    swapped["joints"] = dict(reversed(swapped["joints"].items()))
    (line,) = policy_differences(parse_contract(swapped), TRAINED)
    assert line.startswith("joint order: ['joint6'")


def test_a_camera_that_may_be_missing_may_also_be_required():
    trained = changed(("cameras.wrist.required", False))
    assert policy_differences(TRAINED, trained) == []
