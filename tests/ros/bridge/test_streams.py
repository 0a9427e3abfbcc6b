"""The bridge: messages in, observations out; silence, frozen cameras and broken messages named."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fastvla_core.errors import MessageError
from fastvla_core.robot.align import StaleStreamError
from fastvla_core.robot.contract import CameraSpec
from fastvla_ros.bridge.streams import StreamBridge
from tests.ros.bridge.messages import CONTRACT, MS, header, image, joint_state, picture

STATE = np.arange(7, dtype=np.float32) / 10


def feed(bridge: StreamBridge, at_ms: int, *, state=STATE, frames=None, cameras=("front", "wrist")):
    """One round of joint state and images; `frames` gives each camera's picture number."""
    frames = frames or dict.fromkeys(cameras, at_ms)
    stamp_ns = at_ms * MS
    bridge.on_joint_state(joint_state(state, stamp_ns=stamp_ns), receive_ns=stamp_ns)
    for camera in cameras:
        message = image(picture(frames[camera]), stamp_ns=stamp_ns)
        bridge.on_image(camera, message, receive_ns=stamp_ns)


def stale(bridge: StreamBridge, at_ms: int) -> StaleStreamError:
    with pytest.raises(StaleStreamError) as caught:
        bridge.check(now_ns=at_ms * MS)
    return caught.value


def test_an_observation_holds_the_messages_content():
    bridge = StreamBridge(CONTRACT)
    feed(bridge, 1000, frames={"front": 1, "wrist": 2})
    bridge.check(now_ns=1001 * MS)
    seen = bridge.observe("pick")
    assert seen.stamp_ns == 1000 * MS
    np.testing.assert_array_equal(seen.images["front"], picture(1))
    np.testing.assert_array_equal(seen.images["wrist"], picture(2))
    np.testing.assert_array_equal(seen.state, STATE)


def test_permuted_joint_states_give_the_same_observation():
    bridge = StreamBridge(CONTRACT)
    feed(bridge, 1000)
    order = [4, 2, 6, 0, 1, 5, 3]
    message = joint_state(
        STATE[order], stamp_ns=1010 * MS, names=[CONTRACT.state_names[i] for i in order]
    )
    bridge.on_joint_state(message, receive_ns=0)
    feed(bridge, 1020, cameras=("front", "wrist"))
    np.testing.assert_array_equal(bridge.observe("t").state, STATE)


def test_silence_is_named():
    bridge = StreamBridge(CONTRACT)
    assert stale(bridge, 0).stream in ("front", "wrist", "joint_states")
    feed(bridge, 1000)
    feed(bridge, 1100, cameras=("front",))
    bridge.check(now_ns=1120 * MS)
    error = stale(bridge, 1170)
    assert error.stream == "wrist"
    assert "0.170 s old" in str(error)


def test_a_broken_message_is_dropped_counted_and_named_as_the_reason():
    bridge = StreamBridge(CONTRACT)
    feed(bridge, 1000)
    broken = image(picture(5), stamp_ns=1200 * MS, encoding="bgr8")
    with pytest.raises(MessageError):
        bridge.on_image("wrist", broken, receive_ns=0)
    feed(bridge, 1200, cameras=("front",))
    error = stale(bridge, 1201)
    assert error.stream == "wrist"
    assert "bgr8" in str(error)
    assert bridge.dropped["wrist"] == 1
    feed(bridge, 1210)
    bridge.check(now_ns=1211 * MS)


def test_broken_joint_states_are_counted():
    bridge = StreamBridge(CONTRACT)
    with pytest.raises(MessageError):
        bridge.on_joint_state(joint_state([], stamp_ns=1, names=[]), receive_ns=1)
    assert bridge.dropped["joint_states"] == 1


def run(bridge: StreamBridge, *, frozen: str, moving: bool) -> None:
    for tick in range(20):
        at_ms = 1000 + 33 * tick
        state = STATE + (0.03 * tick if moving else 0.0)
        frames = {c: 0 if c == frozen or not moving else tick for c in ("front", "wrist")}
        feed(bridge, at_ms, state=state.astype(np.float32), frames=frames)


def test_a_frozen_camera_is_found_while_the_arm_moves():
    bridge = StreamBridge(CONTRACT)
    run(bridge, frozen="wrist", moving=True)
    error = stale(bridge, 1000 + 33 * 19)
    assert error.stream == "wrist"
    assert "frozen" in str(error)
    bridge.start_fresh()
    away = (STATE + 0.5).astype(np.float32)
    feed(bridge, 1700, frames={"front": 99, "wrist": 0}, state=away)
    assert stale(bridge, 1701).stream == "wrist"
    feed(bridge, 1733, frames={"front": 100, "wrist": 7})
    bridge.check(now_ns=1734 * MS)


def test_a_robot_at_rest_has_no_frozen_camera():
    bridge = StreamBridge(CONTRACT)
    run(bridge, frozen="front", moving=False)
    bridge.check(now_ns=(1000 + 33 * 19) * MS)
    # the first motion after a long rest is no proof yet: pictures come at their own rate
    moved = (STATE + 0.5).astype(np.float32)
    bridge.on_joint_state(joint_state(moved, stamp_ns=1640 * MS), receive_ns=0)
    bridge.check(now_ns=1641 * MS)
    feed(bridge, 1660, state=moved)
    bridge.check(now_ns=1661 * MS)


@pytest.mark.parametrize("number", [0, 1, 2, 10])
def test_one_wrong_joint_state_does_not_freeze_the_cameras_of_a_robot_at_rest(number: int):
    bridge = StreamBridge(CONTRACT)
    wrong = (STATE + 0.5).astype(np.float32)
    for tick in range(20):
        if tick == number:
            stamp_ns = (1000 + 33 * tick - 5) * MS
            bridge.on_joint_state(joint_state(wrong, stamp_ns=stamp_ns), receive_ns=0)
        feed(bridge, 1000 + 33 * tick, frames={"front": 0, "wrist": 0})
    for at_ms in (1660, 1800, 1950):
        feed(bridge, at_ms, frames={"front": 0, "wrist": 0})
    bridge.check(now_ns=1951 * MS)


def test_start_fresh_forgets_every_sample():
    bridge = StreamBridge(CONTRACT)
    feed(bridge, 1000)
    bridge.start_fresh()
    assert "nothing yet" in str(stale(bridge, 1001))


def test_a_zero_stamp_counts_from_reception():
    bridge = StreamBridge(CONTRACT)
    bridge.on_image("front", image(picture(), stamp_ns=0), receive_ns=77)
    assert bridge.buffers.newest_ns("front") == 77


def test_arrival_is_that_of_the_last_image_of_the_observation():
    import time

    bridge = StreamBridge(CONTRACT)
    feed(bridge, 1000)
    begin = time.monotonic_ns()
    feed(bridge, 1033)
    end = time.monotonic_ns()
    seen = bridge.observe("t")
    arrived = bridge.arrival_ns(seen)
    assert arrived is not None
    assert begin <= arrived <= end
    bridge.on_joint_state(joint_state(STATE, stamp_ns=1040 * MS), receive_ns=0)
    assert bridge.arrival_ns(seen) == arrived


def test_rates_are_measured_and_end_with_the_stream():
    bridge = StreamBridge(CONTRACT)
    assert bridge.rate_hz("front") == 0.0
    feed(bridge, 1000)
    feed(bridge, 1033)
    assert bridge.rate_hz("front") > 0


DEPTH_CAMERA = CameraSpec(
    name="depth", topic="depth/image_raw", encoding="16UC1", width=8, height=6, kind="depth",
    transport="compressed_depth", required=False,
)  # fmt: skip
WITH_DEPTH = dataclasses.replace(CONTRACT, cameras=(*CONTRACT.cameras, DEPTH_CAMERA))


def depth_message(value: int, *, stamp_ns: int) -> SimpleNamespace:
    data = cv2.imencode(".png", np.full((6, 8), value, np.uint16))[1].tobytes()
    return SimpleNamespace(
        header=header(stamp_ns), format="16UC1; compressedDepth png", data=bytes(12) + data
    )


def test_depth_is_observed_apart_from_the_pictures_and_masked_when_it_is_missing():
    bridge = StreamBridge(WITH_DEPTH)
    feed(bridge, 1000)
    assert bridge.observe("t").depths == {}
    bridge.on_image("depth", depth_message(1500, stamp_ns=1020 * MS), receive_ns=0)
    feed(bridge, 1033)
    seen = bridge.observe("t")
    assert seen.images.keys() == {"front", "wrist"}
    np.testing.assert_array_equal(seen.depths["depth"], np.full((6, 8), 1.5, np.float32))
    assert seen.camera_skew_ns == 13 * MS
    feed(bridge, 1400)
    assert bridge.observe("t").depths == {}


def test_a_required_depth_camera_is_awaited():
    cameras = (*CONTRACT.cameras, dataclasses.replace(DEPTH_CAMERA, required=True))
    bridge = StreamBridge(dataclasses.replace(CONTRACT, cameras=cameras))
    feed(bridge, 1000)
    assert stale(bridge, 1001).stream == "depth"


def test_a_cut_compressed_image_is_dropped_and_counted_once():
    bridge = StreamBridge(WITH_DEPTH)
    message = depth_message(1500, stamp_ns=1000 * MS)
    message.data = message.data[:-20]
    with pytest.raises(MessageError, match=r"camera 'depth'.*cut short"):
        bridge.on_image("depth", message, receive_ns=0)
    assert bridge.dropped == {"front": 0, "wrist": 0, "depth": 1, "joint_states": 0}
