"""Our recordings are ordinary rosbag2 bags."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from fastvla_core.errors import BagError
from training.bags.messages import JOINT_STATE, STRING, joint_state_message, to_cdr
from training.bags.reader import open_bag
from training.bags.writer import EpisodeWriter


def test_rosbags_reads_what_we_write(write_episode, contract):
    folder = write_episode(frames=6)
    with AnyReader([folder]) as reader:
        counts = {c.topic: (c.msgtype, c.msgcount) for c in reader.connections}
        assert counts == {
            "/front/image_raw": ("sensor_msgs/msg/Image", 6),
            "/wrist/image_raw": ("sensor_msgs/msg/Image", 6),
            "/joint_states": ("sensor_msgs/msg/JointState", 6),
            "/command": ("trajectory_msgs/msg/JointTrajectory", 6),
        }
        joints = [c for c in reader.connections if c.topic == "/joint_states"]
        states = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(joints)]
    assert states[3].name == list(contract.state_names)
    assert states[3].position == pytest.approx(np.full(7, 0.03))
    assert states[3].header.stamp.sec == 5


def test_the_file_is_indexed_and_its_checksums_hold(write_episode):
    folder = write_episode(frames=6)
    with (folder / "episode_0.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        assert sum(1 for _ in reader.iter_messages()) == 24
        summary = reader.get_summary()
        assert summary is not None
        assert {s.encoding for s in summary.schemas.values()} == {"ros2msg"}


def test_metadata_follows_rosbag2_version_9(write_episode):
    folder = write_episode(frames=3, outcome="failure")
    data = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert data["version"] == 9
    assert data["storage_identifier"] == "mcap"
    assert data["relative_file_paths"] == ["episode_0.mcap"]
    assert data["message_count"] == 12
    assert data["duration"] == {"nanoseconds": 200_000_000}
    assert data["custom_data"]["fastvla.outcome"] == "failure"
    topic = data["topics_with_message_count"][0]["topic_metadata"]
    assert topic["type_description_hash"].startswith("RIHS01_")


@pytest.mark.parametrize("words", ["say: 'cheese' #1", "日本語", 'a "quoted" {thing}'])
def test_instruction_outcome_and_contract_come_back(write_episode, contract, words):
    with open_bag(write_episode(instruction=words)) as bag:
        assert bag.instruction == words
        assert bag.outcome == "success"
        assert bag.contract == contract
        assert not bag.problems


def test_an_unfinished_recording_says_what_the_task_was(tmp_path, contract):
    writer = EpisodeWriter(tmp_path / "live", contract=contract, instruction="push it")
    writer.joint_state(contract.state_names, stamp_ns=1, positions=np.zeros(7))
    with open_bag(tmp_path / "live.partial") as bag:
        assert bag.instruction == "push it"
        assert bag.outcome is None
        assert [p.loses_data for p in bag.problems] == [False, True]
    writer.close()
    assert not (tmp_path / "live.partial").exists()


def test_an_exception_keeps_what_was_recorded(tmp_path, contract):
    def interrupted() -> None:
        with EpisodeWriter(tmp_path / "cut", contract=contract, instruction="push it") as writer:
            writer.joint_state(contract.state_names, stamp_ns=1, positions=np.zeros(7))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with open_bag(tmp_path / "cut") as bag:
        assert bag.outcome == "unknown"
        assert len(list(bag.messages())) == 1


def test_discard_leaves_nothing(tmp_path, contract):
    EpisodeWriter(tmp_path / "bad", contract=contract, instruction="push it").discard()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(write_episode, contract):
    folder = write_episode()
    with pytest.raises(BagError, match="exists already"):
        EpisodeWriter(folder, contract=contract, instruction="push it")


def test_serialised_messages_pass_through(tmp_path, contract):
    message = joint_state_message(["a"], stamp_ns=7, positions=np.ones(1))
    data = to_cdr(message, type_name=JOINT_STATE)
    with EpisodeWriter(tmp_path / "raw", contract=contract, instruction="x") as writer:
        writer.write("/other", type_name=JOINT_STATE, message=data, stamp_ns=9)
    with open_bag(tmp_path / "raw") as bag:
        (raw,) = bag.messages()
    assert (raw.topic, raw.type, raw.stamp_ns, bytes(raw.data)) == ("/other", JOINT_STATE, 9, data)


def test_a_topic_keeps_its_type_and_the_type_must_be_known(tmp_path, contract):
    with EpisodeWriter(tmp_path / "x", contract=contract, instruction="x") as writer:
        writer.write("a", type_name=STRING, message=b"\0\1\0\0", stamp_ns=1)
        with pytest.raises(BagError, match="cannot be added"):
            writer.write("a", type_name=JOINT_STATE, message=b"\0\1\0\0", stamp_ns=1)
        with pytest.raises(BagError, match="not known"):
            writer.write("b", type_name="my_msgs/msg/Thing", message=b"", stamp_ns=1)
