"""What a goal makes of its streams: silent, too far apart, in another order, half wrong."""

from __future__ import annotations

import numpy as np
import pytest

from fastvla_core.errors import MessageError
from fastvla_core.robot.align import StaleStreamError
from fastvla_ros.nodes.goal_types import GoalCode, GoalState
from tests.ros.bridge.messages import MS, image, joint_state, picture
from tests.ros.nodes.session_rig import CONTRACT, REST, Rig


def noted_reasons(rig: Rig) -> list[str]:
    """Why observations could not be built."""
    reasons: list[str] = []
    observe = rig.bridge.observe

    def note(*args, **options):
        try:
            return observe(*args, **options)
        except StaleStreamError as error:
            reasons.append(error.message)
            raise

    rig.bridge.observe = note
    return reasons


def test_joint_states_that_go_quiet_leave_the_hold_to_the_guard(make_rig):
    rig = make_rig(sensor_timeout_s=1.0)
    rig.tick(20)
    rig.silent = {"joint_states"}
    before = len(rig.commands)
    rig.tick(60)
    assert rig.end is not None
    assert rig.end.code is GoalCode.STALE_SENSOR
    assert "'joint_states'" in rig.end.message
    assert "joint_states" in {f.blocking_stream for f in rig.feedback}
    # No command is made up from an old position: the guard, which hears nothing, holds.
    assert len(rig.commands) - before <= 4
    assert rig.commands[-1].velocities.any()


def test_cameras_too_far_apart_are_held_for_and_named(make_rig):
    rig = make_rig()
    reasons = noted_reasons(rig)
    rig.tick(20)
    assert reasons == []
    rig.periods["wrist"], rig.joint_lag_ns = 4, 20 * MS
    rig.tick(40)
    assert any("'wrist' is 0.1" in reason and "behind the others" in reason for reason in reasons)
    assert {"wrist"} <= {f.blocking_stream for f in rig.feedback} <= {"wrist", ""}
    assert GoalState.HOLDING in {f.state for f in rig.feedback}


def test_a_permuted_joint_state_gives_the_same_commands(make_rig):
    plain, permuted = make_rig(), make_rig()
    permuted.order = [5, 3, 6, 0, 2, 1, 4]
    for rig in (plain, permuted):
        rig.tick(30)
    assert len(plain.commands) == len(permuted.commands) > 20
    for ours, theirs in zip(plain.commands, permuted.commands):
        np.testing.assert_array_equal(ours.positions, theirs.positions)


def wrong_joint_state(kind: str, *, stamp_ns: int):
    names, state = list(CONTRACT.state_names), REST.copy()
    if kind == "not finite":
        state[3] = np.nan
    elif kind == "is there twice":
        names[3] = names[2]
    else:
        names[3] = "elbow"
    return joint_state(state, stamp_ns=stamp_ns, names=names)


@pytest.mark.parametrize("kind", ["not finite", "is there twice", "no position for joint4"])
def test_wrong_joint_states_are_the_reason_that_is_given(make_rig, kind: str):
    rig = make_rig(sensor_timeout_s=0.5)
    rig.tick(20)
    rig.silent = {"joint_states"}
    while rig.end is None:
        message = wrong_joint_state(kind, stamp_ns=rig.ros_ns)
        with pytest.raises(MessageError):
            rig.bridge.on_joint_state(message, receive_ns=rig.ros_ns)
        rig.tick()
    assert rig.end.code is GoalCode.STALE_SENSOR
    assert "'joint_states'" in rig.end.message
    assert kind in rig.end.message
    assert all(np.isfinite(c.positions).all() for c in rig.commands)


def test_a_camera_that_changes_its_size_is_the_reason_that_is_given(make_rig):
    rig = make_rig(sensor_timeout_s=0.5)
    rig.tick(20)
    rig.silent = {"wrist"}
    while rig.end is None:
        message = image(picture(rig.frame, size=48), stamp_ns=rig.ros_ns)
        with pytest.raises(MessageError):
            rig.bridge.on_image("wrist", message, receive_ns=rig.ros_ns)
        rig.tick()
    assert rig.end.code is GoalCode.STALE_SENSOR
    assert "'wrist'" in rig.end.message
    assert "48x48" in rig.end.message


def test_no_observation_is_ever_made_up(make_rig):
    rig = make_rig(sensor_timeout_s=0.5)
    rig.silent = {"front"}
    rig.tick(30)
    assert rig.end is not None
    assert rig.policy.observations == []
    rig.silent = set()
    rig.start()
    rig.tick(10)
    assert all(seen.images["front"].any() and seen.state.any() for seen in rig.policy.observations)
