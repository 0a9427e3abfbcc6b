"""Any rosbag2 recording opens: real ones, split, compressed, with a log, without metadata."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter

import pytest
import zstandard
from rosbags.highlevel import AnyReader

from fastvla_core.errors import BagError
from training.bags.messages import STRING, TASK_OUTCOME, stamp_of, typestore
from training.bags.reader import open_bag
from training.bags.writer import EpisodeWriter

DATABASE = """
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT,
                    offered_qos_profiles TEXT);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);
CREATE INDEX timestamp_idx ON messages(timestamp ASC);
INSERT INTO topics VALUES(1, '/a', 'std_msgs/msg/String', 'cdr', '');
"""


@pytest.mark.parametrize(
    ("name", "topics", "messages"),
    [
        ("07_rosbag2js_images", 5, 5),
        ("09_rosbag2_wbag_db3", 8, 6074),
        ("09_rosbag2_wbag_mcap", 8, 6074),
        ("10_rosbag2_split_no_metadata_db3", 1, 3177),
        ("10_rosbag2_split_no_metadata_mcap", 1, 3177),
        ("13_rosbag2_empty_with_wal", 2, 0),
        ("14_alltypes_db3", 94, 188),
        ("14_alltypes_mcap", 94, 188),
        ("15_nav2_filezstd", 3, 693),
        ("16_truncated/test_sample.mcap", 2, 14),
        ("16_truncated/test_sample.mcap.zstd", 2, 14),
        ("16_truncated/test_sample_truncated.mcap", 2, 14),
        ("20_crazyflie_pose_cmd", 6, 3073),
    ],
)
def test_real_recordings_are_read_whole_and_in_order(real_bags, name, topics, messages):
    with open_bag(real_bags / name) as bag:
        found = list(bag.messages())
        assert len(bag.topics) == topics
        assert len(found) == messages
        assert [m.stamp_ns for m in found] == sorted(m.stamp_ns for m in found)
        assert Counter(m.topic for m in found) == {
            n: info.count for n, info in bag.topics.items() if info.count
        }


def test_both_storages_of_one_recording_are_equal(real_bags):
    with (
        open_bag(real_bags / "09_rosbag2_wbag_db3") as left,
        open_bag(real_bags / "09_rosbag2_wbag_mcap") as right,
    ):
        contents = [
            sorted((m.stamp_ns, m.topic, bytes(m.data)) for m in bag.messages())
            for bag in (left, right)
        ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", ["14_alltypes_mcap", "20_crazyflie_pose_cmd/yx4bag_0.mcap"])
def test_we_agree_with_rosbags(real_bags, name):
    with open_bag(real_bags / name) as bag, AnyReader([real_bags / name]) as reader:
        ours = sorted((m.stamp_ns, m.topic, m.type, bytes(m.data)) for m in bag.messages())
        theirs = sorted(
            (stamp, c.topic, c.msgtype, bytes(raw)) for c, stamp, raw in reader.messages()
        )
    assert ours == theirs


def test_old_type_names_are_completed(real_bags):
    with open_bag(real_bags / "07_rosbag2js_images") as bag:
        assert "sensor_msgs/msg/Image" in {info.type for info in bag.topics.values()}


def test_what_is_not_ros_is_refused_with_the_reason(real_bags):
    with pytest.raises(BagError, match=r"holds no ROS 2 messages.*json, protobuf"):
        open_bag(real_bags / "18_nonros")


def test_only_the_topics_that_are_asked_for(write_episode):
    with open_bag(write_episode()) as bag:
        assert {m.topic for m in bag.messages(["/command"])} == {"/command"}


def test_messages_in_a_write_ahead_log_are_read(tmp_path):
    live = tmp_path / "live.db3"
    connection = sqlite3.connect(live)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.executescript(DATABASE)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    rows = [(1, k, b"\0\1\0\0") for k in range(50)]
    connection.executemany("INSERT INTO messages(topic_id, timestamp, data) VALUES(?,?,?)", rows)
    connection.commit()
    bag_folder = tmp_path / "bag"
    bag_folder.mkdir()
    for name in ("live.db3", "live.db3-wal"):
        shutil.copy(tmp_path / name, bag_folder / name)
    connection.close()
    before = (bag_folder / "live.db3").read_bytes()
    with open_bag(bag_folder) as bag:
        assert len(list(bag.messages())) == 50
        assert any("write-ahead log" in p.message for p in bag.problems)
    assert (bag_folder / "live.db3").read_bytes() == before


def test_a_single_file_opens_too(write_episode):
    with open_bag(write_episode() / "episode_0.mcap") as bag:
        assert len(list(bag.messages())) == 40
        assert bag.instruction == "pick up the red cube"


def test_broken_metadata_is_passed_over(write_episode):
    folder = write_episode()
    (folder / "metadata.yaml").write_text("rosbag2_bagfile_information: [oops")
    with open_bag(folder) as bag:
        assert len(list(bag.messages())) == 40
        assert any("metadata.yaml cannot be read" in p.message for p in bag.problems)


def test_a_missing_split_is_named(write_episode):
    folder = write_episode()
    metadata = folder / "metadata.yaml"
    text = metadata.read_text().replace(
        "  - episode_0.mcap\n", "  - episode_0.mcap\n  - episode_1.mcap\n"
    )
    metadata.write_text(text)
    with open_bag(folder) as bag:
        lost = [p.message for p in bag.problems if p.loses_data]
    assert len(lost) == 1
    assert "episode_1.mcap" in lost[0]


def test_splits_are_merged_by_time(write_episode, tmp_path):
    split = tmp_path / "split"
    split.mkdir()
    whole = write_episode("a", frames=8)
    shutil.copy(whole / "a_0.mcap", split / "x_2.mcap")
    shutil.copy(whole / "a_0.mcap", split / "x_10.mcap")
    with open_bag(split) as bag:
        stamps = [m.stamp_ns for m in bag.messages()]
        assert [f.name for f in bag.files] == ["x_2.mcap", "x_10.mcap"]
    assert len(stamps) == 64
    assert stamps == sorted(stamps)


def test_messages_compressed_one_by_one_are_unpacked(tmp_path):
    bag_folder = tmp_path / "bag"
    bag_folder.mkdir()
    connection = sqlite3.connect(bag_folder / "bag_0.db3")
    connection.executescript(DATABASE)
    packed = zstandard.ZstdCompressor().compress(b"\0\1\0\0hello")
    connection.execute("INSERT INTO messages VALUES(1, 1, 5, ?)", (packed,))
    connection.commit()
    connection.close()
    with open_bag(bag_folder) as bag:
        assert [bytes(m.data) for m in bag.messages()] == [b"\0\1\0\0hello"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"#ROSBAG V2.0\n", "ROS 1"),
        (b"hello", "neither"),
        (b"SQLite format 3\0rest", "not a readable"),
        (b"\x28\xb5\x2f\xfdrest", "nothing of it could be unpacked"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "file.mcap"
    path.write_bytes(content)
    with pytest.raises(BagError, match=reason) as info:
        open_bag(path)
    assert info.value.mend


def test_an_empty_folder_and_no_folder_are_refused(tmp_path):
    with pytest.raises(BagError, match="holds no recording"):
        open_bag(tmp_path)
    with pytest.raises(BagError, match="does not exist"):
        open_bag(tmp_path / "nowhere")


def test_task_and_outcome_are_read_from_their_topics(tmp_path, contract):
    types = typestore().types
    outcome = types[TASK_OUTCOME]
    header = types["std_msgs/msg/Header"](stamp=stamp_of(3), frame_id="")
    said = [
        (STRING, "/current_task", types[STRING](data="reach the red cube")),
        (TASK_OUTCOME, "/task_outcome", outcome(header=header, task="", outcome=2, detail="")),
        (STRING, "/current_task", types[STRING](data="pick it up")),
        (TASK_OUTCOME, "/task_outcome", outcome(header=header, task="", outcome=0, detail="")),
        (TASK_OUTCOME, "/task_outcome", outcome(header=header, task="", outcome=1, detail="")),
    ]
    with EpisodeWriter(tmp_path / "bag", contract=contract, instruction="") as writer:
        for k, (type_name, topic, message) in enumerate(said):
            writer.write(topic, type_name=type_name, message=message, stamp_ns=k)
    content = (tmp_path / "bag" / "bag_0.mcap").read_bytes().replace(b"fastvla.", b"foreign.")
    (tmp_path / "foreign.mcap").write_bytes(content)
    with open_bag(tmp_path / "foreign.mcap") as bag:
        assert (bag.instruction, bag.outcome) == ("pick it up", "success")
