"""Steps of a recording: aligned as live, labelled from the commands, holes left out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fastvla_core.errors import BagError
from fastvla_core.robot.align import StaleStreamError
from fastvla_core.types import Observation
from fastvla_ros.bridge.streams import StreamBridge
from tests.training.conftest import START_NS
from training.bags import messages
from training.bags.episodes import EpisodeSteps, episode_steps
from training.bags.reader import open_bag
from training.bags.streams import BagStreams, observe_at
from training.bags.writer import EpisodeWriter

S = 1_000_000_000


def steps_of(path: Path, contract, **options) -> EpisodeSteps:
    with open_bag(path) as bag:
        return episode_steps(bag, contract=contract, **options)


def test_every_frame_of_a_10_hz_recording_is_one_step(write_episode, contract):
    steps = steps_of(write_episode(frames=12), contract)
    assert list(steps.stamp_ns) == [START_NS + k * S // 10 for k in range(12)]
    assert list(steps.tick) == list(range(12))
    assert steps.images["front"].shape == (12, 12, 16, 3)
    assert steps.image_present.all()
    assert steps.state == pytest.approx(np.outer(np.arange(12) * 0.01, np.ones(7)))
    expected = np.outer(np.arange(1, 13) * 0.01, np.ones(7)).astype(np.float32)
    assert np.array_equal(steps.label, expected)
    assert (steps.instruction, steps.outcome) == ("pick up the red cube", "success")
    assert steps.dropped == {}
    assert steps.bad_messages == {}


def test_stamps_that_are_rounding_late_belong_to_their_tick(write_episode, contract):
    exact = steps_of(write_episode("episode-a", frames=20), contract)
    rounded = steps_of(write_episode("episode-b", frames=20, jitter_ns=2000), contract)
    assert np.array_equal(exact.images["front"], rounded.images["front"])
    assert np.array_equal(exact.images["wrist"], rounded.images["wrist"])
    assert np.array_equal(exact.state, rounded.state)
    assert np.array_equal(exact.label, rounded.label)


def test_only_the_last_picture_that_was_seen_stays_unpacked(write_episode, contract):
    stamps = [START_NS + k * S // 10 for k in range(12)]
    with open_bag(write_episode(frames=12)) as bag:
        streams = BagStreams(bag, contract=contract)
        fed = list(streams.feed())
        assert len(fed) == 36

        def unpacked() -> list[int]:
            held = [streams.buffers.hold("front", at_ns=at_ns) for at_ns in stamps]
            return [k for k, sample in enumerate(held) if isinstance(sample.value, np.ndarray)]

        for number, at_ns in enumerate(stamps):
            streams.unpack(at_ns)
            assert unpacked() == [number]
        first = streams.buffers.hold("front", at_ns=stamps[3])
        streams.unpack(stamps[3])
        assert unpacked() == [3]
        assert np.array_equal(
            streams.buffers.hold("front", at_ns=stamps[3]).value, first.value.pixels()
        )


def test_labels_come_from_the_clean_commands(write_episode, contract):
    steps = steps_of(write_episode(clean_offset=0.5), contract)
    assert steps.label[:, 0] == pytest.approx(0.5 + 0.01 * np.arange(1, 11))


def test_commands_at_30_hz_are_interpolated_and_the_gripper_is_held(write_episode, contract):
    folder = write_episode(frames=61, period_ns=S // 30)
    steps = steps_of(folder, contract)
    # The command of frame k is 0.01 (k + 1), reached at frame k + 1: 0.3 a second.
    ahead_s = (steps.stamp_ns - START_NS) / 1e9 + 0.1
    assert steps.label[:, :6] == pytest.approx(np.outer(ahead_s * 0.3, np.ones(6)), abs=1e-4)
    gripper = steps.label[:, 6] / 0.01
    assert gripper == pytest.approx(np.round(gripper), abs=1e-4)


def test_a_hole_drops_its_steps_and_no_others(write_episode, contract):
    hole = write_episode(frames=60, leave_out=lambda s, k: s == "wrist" and 20 <= k < 40)
    steps = steps_of(hole, contract)
    assert list(steps.tick) == [*range(20), *range(40, 60)]
    assert steps.dropped == {"wrist stale": 20}


def test_a_step_without_a_command_is_dropped(write_episode, contract):
    hole = write_episode(frames=60, leave_out=lambda s, k: s == "command" and 20 <= k < 40)
    steps = steps_of(hole, contract)
    assert list(steps.tick) == [*range(20), *range(40, 60)]
    assert steps.dropped == {"no command": 20}


def test_a_missing_optional_camera_is_masked(write_episode, contract):
    cameras = tuple(dataclasses.replace(c, required=c.name != "wrist") for c in contract.cameras)
    optional = dataclasses.replace(contract, cameras=cameras)
    folder = write_episode(leave_out=lambda s, k: s == "wrist" and k >= 4)
    steps = steps_of(folder, optional)
    assert list(steps.tick) == list(range(10))
    assert steps.image_present[:, 0].all()
    # At tick 4 its last picture is young enough, but too far from that of the other camera.
    assert list(steps.image_present[:, 1]) == [True] * 4 + [False] * 6


def test_a_missing_required_stream_is_named(write_episode, contract):
    for stream, words in {
        "front": "camera 'front' on '/front/image_raw'",
        "joint_states": "the joint states on '/joint_states'",
        "command": "the commands on '/command'",
    }.items():
        folder = write_episode(stream, leave_out=lambda s, k, stream=stream: s == stream)
        with pytest.raises(BagError, match=words) as info:
            steps_of(folder, contract)
        assert info.value.mend


def test_another_robots_contract_is_refused_with_the_differences(write_episode, contract):
    joints = (*contract.joints[1:], dataclasses.replace(contract.joints[0], name="elbow"))
    other = dataclasses.replace(contract, joints=joints)
    with pytest.raises(BagError, match=r"another robot contract.*elbow"):
        steps_of(write_episode(), other)


def test_a_recording_without_a_task_needs_one(write_episode, contract):
    folder = write_episode(instruction="")
    with pytest.raises(BagError, match="does not say what the task was"):
        steps_of(folder, contract)
    assert steps_of(folder, contract, instruction="reach").instruction == "reach"


def test_topics_below_a_namespace_are_found(tmp_path, contract):
    message = messages.joint_state_message(contract.state_names, stamp_ns=1, positions=np.zeros(7))
    with EpisodeWriter(tmp_path / "ns", contract=contract, instruction="x") as writer:
        writer.write(
            "/robot1/joint_states", type_name=messages.JOINT_STATE, message=message, stamp_ns=1
        )
    with pytest.raises(BagError, match="camera 'front'"):
        steps_of(tmp_path / "ns", contract)


def test_broken_messages_are_dropped_and_counted_as_live(tmp_path, contract):
    with EpisodeWriter(tmp_path / "bad", contract=contract, instruction="x") as writer:
        for k in range(20):
            stamp = START_NS + k * S // 10
            for camera in contract.policy_cameras:
                image = np.full((12, 16, 3), k, np.uint8)
                if camera.name == "front" and k == 5:
                    image = np.zeros((6, 8, 3), np.uint8)
                writer.image(camera.name, stamp_ns=stamp, image=image)
            writer.joint_state(contract.state_names, stamp_ns=stamp, positions=np.zeros(7))
            writer.command(
                contract.action_names, stamp_ns=stamp, positions=np.zeros(7), duration_s=0.1
            )
    steps = steps_of(tmp_path / "bad", contract)
    assert steps.bad_messages == {"/front/image_raw": 1}
    # The last good picture is held, but the cameras are then too far apart.
    assert steps.dropped == {"front stale": 1}


def test_messages_that_never_fit_end_in_their_own_reason(tmp_path, contract):
    with EpisodeWriter(tmp_path / "names", contract=contract, instruction="x") as writer:
        for k in range(5):
            for camera in contract.policy_cameras:
                image = np.zeros((12, 16, 3), np.uint8)
                writer.image(camera.name, stamp_ns=START_NS + k, image=image)
            names = [f"other{i}" for i in range(7)]
            writer.joint_state(names, stamp_ns=START_NS + k, positions=np.zeros(7))
            writer.command(names, stamp_ns=START_NS + k, positions=np.zeros(7), duration_s=0.1)
    with pytest.raises(BagError, match=r"no position for joint1.*other0") as info:
        steps_of(tmp_path / "names", contract)
    assert "joint_states.names" in info.value.mend


def test_commands_permuted_by_name_give_the_same_labels(tmp_path, contract):
    order = [3, 6, 0, 1, 2, 5, 4]
    labels = []
    for name, permutation in {"straight": range(7), "permuted": order}.items():
        with EpisodeWriter(tmp_path / name, contract=contract, instruction="x") as writer:
            for k in range(3):
                stamp = START_NS + k * S // 10
                for camera in contract.policy_cameras:
                    writer.image(camera.name, stamp_ns=stamp, image=np.zeros((12, 16, 3), np.uint8))
                names = [contract.state_names[i] for i in permutation]
                values = np.asarray([0.1 * i + k for i in permutation])
                writer.joint_state(names, stamp_ns=stamp, positions=values)
                writer.command(names, stamp_ns=stamp, positions=values, duration_s=0.1)
        labels.append(steps_of(tmp_path / name, contract))
    assert np.array_equal(labels[0].label, labels[1].label)
    assert np.array_equal(labels[0].state, labels[1].state)


def _live_recording(folder: Path, contract) -> list[Observation]:
    """Feed a bridge and a recorder the same late, jittered messages; what the bridge observed."""
    random = np.random.default_rng(3)
    arrivals = []
    for name, rate in {"front": 30, "wrist": 30, "joint_states": 100}.items():
        for k in range(3 * rate):
            stamp = START_NS + k * S // rate + int(random.integers(0, 2_000_000))
            late = int(random.integers(1_000_000, 4_000_000) * (4 if name == "wrist" else 1))
            arrivals.append((stamp + late, stamp, name))
    bridge = StreamBridge(contract)
    seen: list[Observation] = []
    with EpisodeWriter(folder, contract=contract, instruction="lift") as writer:
        for receive, stamp, name in sorted(arrivals):
            kind = messages.JOINT_STATE if name == "joint_states" else messages.IMAGE
            if name == "joint_states":
                positions = random.normal(size=7)
                message = messages.joint_state_message(
                    contract.state_names, stamp_ns=stamp, positions=positions
                )
                topic = contract.joint_states.topic
            else:
                pixels = random.integers(0, 255, (12, 16, 3), np.uint8)
                message = messages.image_message(pixels, stamp_ns=stamp, frame_id=name)
                topic = contract.camera(name).topic
            data = messages.to_cdr(message, type_name=kind)
            writer.write(topic, type_name=kind, message=data, stamp_ns=receive)
            received = messages.from_cdr(data, type_name=kind)
            if name == "joint_states":
                bridge.on_joint_state(received, receive_ns=receive)
            else:
                bridge.on_image(name, received, receive_ns=receive)
            if random.random() < 0.1:
                try:
                    seen.append(bridge.observe("lift"))
                except StaleStreamError:
                    continue
    return seen


def _aligned(contract, cameras: str, state: str):
    joints = dataclasses.replace(contract.joint_states, align=state)
    kinds = tuple(dataclasses.replace(c, align=cameras) for c in contract.cameras)
    return dataclasses.replace(contract, joint_states=joints, cameras=kinds)


@pytest.mark.parametrize(("cameras", "state"), [("hold", "hold"), ("nearest", "linear")])
def test_an_observation_from_the_bag_is_byte_equal_to_the_live_one(
    tmp_path, contract, cameras, state
):
    contract = _aligned(contract, cameras, state)
    live = _live_recording(tmp_path / "live", contract)
    assert len(live) > 30
    with open_bag(tmp_path / "live") as bag:
        at_ns = [observation.stamp_ns for observation in live]
        recorded = list(observe_at(bag, contract=contract, task="lift", at_ns=at_ns))
    assert len(recorded) == len(live)
    for ours, theirs in zip(recorded, live):
        assert isinstance(ours, Observation)
        assert ours.stamp_ns == theirs.stamp_ns
        assert ours.task == theirs.task
        assert ours.state.tobytes() == theirs.state.tobytes()
        assert ours.state.dtype == theirs.state.dtype
        assert ours.images.keys() == theirs.images.keys()
        for name in ours.images:
            assert ours.images[name].tobytes() == theirs.images[name].tobytes()
        assert ours.oldest_age_ns == theirs.oldest_age_ns
        assert ours.camera_skew_ns == theirs.camera_skew_ns


def test_bytes_that_are_no_message_are_dropped_and_counted(tmp_path, contract, write_episode):
    folder = write_episode(frames=20)
    with (
        EpisodeWriter(tmp_path / "bad", contract=contract, instruction="x") as writer,
        open_bag(folder) as bag,
    ):
        for raw in bag.messages():
            cut = raw.topic == "/joint_states" and raw.stamp_ns == START_NS + S
            data = bytes(raw.data)[:40] if cut else bytes(raw.data)
            writer.write(raw.topic, type_name=raw.type, message=data, stamp_ns=raw.stamp_ns)
    steps = steps_of(tmp_path / "bad", contract)
    assert steps.bad_messages == {"/joint_states": 1}
    assert len(steps) == 20
    # Held for one step: 0.1 s is as old as joint states may be.
    assert np.array_equal(steps.state[10], steps.state[9])


def test_the_next_state_can_be_the_action(write_episode, contract):
    folder = write_episode(
        frames=30, leave_out=lambda s, k: s == "command" or (s == "front" and 10 <= k < 15)
    )
    steps = steps_of(folder, contract, action="next_state")
    # What follows a hole is no next state, and the last step has none.
    assert list(steps.tick) == [*range(9), *range(15, 29)]
    assert steps.dropped == {"front stale": 5, "no next state": 2}
    assert np.array_equal(steps.label[:8], steps.state[1:9])
    assert steps.label[8] == pytest.approx(0.09)


def test_increments_are_added_to_the_state_and_the_gripper_is_not(tmp_path, contract):
    with EpisodeWriter(tmp_path / "bag", contract=contract, instruction="x") as writer:
        for k in range(10):
            stamp = START_NS + k * S // 10
            for camera in contract.policy_cameras:
                writer.image(camera.name, stamp_ns=stamp, image=np.zeros((12, 16, 3), np.uint8))
            writer.joint_state(contract.state_names, stamp_ns=stamp, positions=np.full(7, 0.1 * k))
            for part in (1, 2):
                # Two increments per step, but for the last two steps.
                if k < 8:
                    change = np.asarray([0.01 * part] * 6 + [0.02 + 0.001 * k])
                    writer.command(
                        contract.action_names,
                        stamp_ns=stamp + part * S // 40,
                        positions=change,
                        duration_s=0.1,
                    )
    steps = steps_of(tmp_path / "bag", contract, action="delta")
    assert list(steps.tick) == list(range(8))
    assert steps.dropped == {"no command": 2}
    expected = np.arange(8) * 0.1 + 0.03
    assert steps.label[:, :6] == pytest.approx(np.outer(expected, np.ones(6)))
    assert steps.label[:, 6] == pytest.approx(0.02 + 0.001 * np.arange(8))


def _with_camera_clock(folder: Path, contract, *, late_ns) -> None:
    """Pictures whose headers are of another clock than their times of receipt."""
    with EpisodeWriter(folder, contract=contract, instruction="x") as writer:
        for k in range(100):
            at_ns = START_NS + k * S // 10
            for camera in contract.policy_cameras:
                message = messages.image_message(
                    np.zeros((12, 16, 3), np.uint8), stamp_ns=at_ns - late_ns(k), frame_id=""
                )
                writer.write(
                    camera.topic, type_name=messages.IMAGE, message=message, stamp_ns=at_ns
                )
            writer.joint_state(contract.state_names, stamp_ns=at_ns, positions=np.zeros(7))
            writer.command(
                contract.action_names, stamp_ns=at_ns, positions=np.zeros(7), duration_s=0.1
            )


def _by_receipt(contract):
    return dataclasses.replace(contract, sync=dataclasses.replace(contract.sync, stamp="receive"))


def test_a_clock_of_another_machine_is_named_and_receipt_aligns_it(tmp_path, contract):
    _with_camera_clock(tmp_path / "off", contract, late_ns=lambda k: 3 * S)
    with pytest.raises(BagError, match=r"no step is complete.*3\.000 s behind"):
        steps_of(tmp_path / "off", contract)
    steps = steps_of(tmp_path / "off", _by_receipt(contract))
    assert len(steps) == 100
    assert steps.notes == ()


def test_a_clock_that_drifts_is_noted(tmp_path, contract):
    _with_camera_clock(tmp_path / "drift", contract, late_ns=lambda k: k * 500_000)
    steps = steps_of(tmp_path / "drift", contract)
    (front, wrist) = steps.notes
    assert "'/front/image_raw' drifts by 50" in front
    assert "--clock receive" in wrist


def test_headers_without_a_stamp_count_by_receipt_and_that_is_noted(tmp_path, contract):
    _with_camera_clock(tmp_path / "zero", contract, late_ns=lambda k: START_NS + k * S // 10)
    steps = steps_of(tmp_path / "zero", contract)
    assert len(steps) == 100
    assert any("'/front/image_raw' have no stamp" in note for note in steps.notes)


def test_every_message_is_accounted_for(tmp_path, contract):
    with EpisodeWriter(tmp_path / "bag", contract=contract, instruction="x") as writer:
        for k in range(60):
            stamp = START_NS + k * S // 30
            for camera in contract.policy_cameras:
                image = np.zeros((12, 16, 3), np.uint8)
                writer.image(camera.name, stamp_ns=stamp, image=image)
                if camera.name == "front" and k == 30:
                    writer.image(camera.name, stamp_ns=stamp, image=image)
            writer.joint_state(contract.state_names, stamp_ns=stamp, positions=np.zeros(7))
            writer.command(
                contract.action_names, stamp_ns=stamp, positions=np.zeros(7), duration_s=0.1
            )
    steps = steps_of(tmp_path / "bag", contract)
    assert len(steps) == 20
    assert steps.late_messages == {"/front/image_raw": 1}
    assert steps.unused_messages["/front/image_raw"] == 40
    assert steps.unused_messages["/wrist/image_raw"] == 40
