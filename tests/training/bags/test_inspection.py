"""`inspect` reports on every file and raises on none."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.writer import CompressionType, Writer

from fastvla_core.bags import writer as writer_module
from fastvla_core.cli import main
from tests.training.bags.test_reader import DATABASE
from training.bags import messages
from training.bags.inspection import inspect_bag
from training.bags.reader import open_bag
from training.bags.writer import EpisodeWriter

S = 1_000_000_000


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("07_rosbag2js_images", 0),
        ("09_rosbag2_wbag_db3", 0),
        ("09_rosbag2_wbag_mcap", 0),
        ("10_rosbag2_split_no_metadata_db3", 0),
        ("10_rosbag2_split_no_metadata_mcap", 0),
        ("13_rosbag2_empty_with_wal", 0),
        ("14_alltypes_db3", 0),
        ("14_alltypes_mcap", 0),
        ("15_nav2_filezstd", 0),
        ("16_truncated", 1),
        ("16_truncated/test_sample.mcap", 0),
        ("16_truncated/test_sample_truncated.mcap", 1),
        ("18_nonros", 2),
        ("20_crazyflie_pose_cmd", 0),
        ("README.md", 2),
        ("nowhere", 2),
    ],
)
def test_verdicts_on_real_files(real_bags, capsys, name, verdict):
    assert main(["data", "inspect", str(real_bags / name), "--json"]) == verdict
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == verdict
    assert all(problem["mend"] for problem in report["problems"])
    assert any(p["loses_data"] for p in report["problems"]) == (verdict > 0)


def test_an_episode_is_described(write_episode, capsys):
    assert main(["data", "inspect", str(write_episode())]) == 0
    text = capsys.readouterr().out
    assert "pick up the red cube" in text
    assert "success" in text
    assert "10.00 Hz  /front/image_raw" in text


def test_a_pause_of_a_stream_is_named(write_episode):
    hole = write_episode(frames=60, leave_out=lambda s, k: s == "wrist" and 20 <= k < 40)
    (problem,) = inspect_bag(hole).problems
    assert "'/wrist/image_raw' pauses for 2.10 s" in problem.message


def test_fewer_messages_than_the_metadata_counts_is_a_loss(write_episode):
    folder = write_episode()
    metadata = folder / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 40", "message_count: 41"))
    report = inspect_bag(folder)
    assert report.verdict == 1
    assert "counts 41 messages, 40 were read" in report.problems[0].message


def test_a_recording_of_which_nothing_is_left_is_not_readable(write_episode):
    folder = write_episode()
    (file,) = folder.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:100])
    assert inspect_bag(folder).verdict == 2


def test_a_packed_recording_that_cannot_be_unpacked_is_named_by_its_own_path(tmp_path):
    file = tmp_path / "bag.mcap.zstd"
    file.write_bytes(b"\x28\xb5\x2f\xfd" + b"junk" * 50)
    (problem,) = inspect_bag(file).problems
    assert problem.message.startswith(f"{file}: is damaged")


def test_a_strange_entry_of_the_metadata_does_not_hide_the_recording(write_episode):
    folder = write_episode()
    metadata = folder / "metadata.yaml"
    data = yaml.safe_load(metadata.read_text())
    data["rosbag2_bagfile_information"]["custom_data"] = ["a"]
    metadata.write_text(yaml.safe_dump(data))
    report = inspect_bag(folder)
    assert report.verdict == 0
    assert report.instruction == "pick up the red cube"


def write_clocks(folder: Path, contract, header_ns) -> None:
    """Joint states at 50 Hz for 20 s; the header is a function of the time of receipt."""
    with EpisodeWriter(folder, contract=contract, instruction="x") as writer:
        for k in range(1000):
            at_ns = 1_700_000_000 * S + k * S // 50
            message = messages.joint_state_message(
                contract.state_names, stamp_ns=header_ns(at_ns, k), positions=np.zeros(7)
            )
            writer.write(
                "joint_states", type_name=messages.JOINT_STATE, message=message, stamp_ns=at_ns
            )


def test_offset_and_drift_of_a_header_clock_are_measured(tmp_path, contract):
    begin = 1_700_000_000 * S
    write_clocks(tmp_path / "bag", contract, lambda at, k: at - 4_000_000 - (at - begin) // 1000)
    report = inspect_bag(tmp_path / "bag")
    clock = report.topics[0].clock
    assert clock is not None
    assert clock.drift_ppm == pytest.approx(1000, rel=0.01)
    assert clock.offset_s == pytest.approx(0.014, abs=0.0005)
    (problem,) = report.problems
    assert "drifts by 1000 ppm, 0.020 s within it" in problem.message
    assert "--clock receive" in problem.mend
    assert report.verdict == 0


def test_a_machine_that_delays_some_messages_has_no_drift(tmp_path, contract):
    random = np.random.default_rng(0)
    late = (random.exponential(3e6, 1000) + (random.random(1000) < 0.05) * 8e7).astype(int)
    write_clocks(tmp_path / "bag", contract, lambda at, k: at - int(late[k]))
    report = inspect_bag(tmp_path / "bag")
    # A message that is late overtakes none: its header is older than those before it.
    assert all("a header older" in problem.message for problem in report.problems)
    assert report.topics[0].clock.offset_s == pytest.approx(0.0022, abs=0.001)


@pytest.mark.parametrize(
    ("header_ns", "words"),
    [
        (lambda at, k: 0, "1000 of 1000 headers have no stamp"),
        (lambda at, k: at + 50_000_000, "is 0.050 s ahead of the time of receipt"),
        (lambda at, k: k * S // 50 + 1, "behind the time of receipt"),
        (lambda at, k: at - (40_000_000 if k == 500 else 0), "1 messages have a header older"),
    ],
)
def test_headers_that_cannot_be_are_noted_and_lose_nothing(tmp_path, contract, header_ns, words):
    write_clocks(tmp_path / "bag", contract, header_ns)
    report = inspect_bag(tmp_path / "bag")
    (problem,) = report.problems
    assert words in problem.message
    assert problem.mend
    assert report.verdict == 0


def test_what_a_damaged_chunk_costs_is_counted_per_topic(write_episode, monkeypatch):
    monkeypatch.setattr(writer_module, "_CHUNK_BYTES", 8192)
    folder = write_episode(frames=60)
    whole = {t.name: t.count for t in inspect_bag(folder).topics}
    (file,) = folder.glob("*.mcap")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    report = inspect_bag(folder)
    assert report.verdict == 1
    lost = {t.name: t.lost for t in report.topics if t.lost}
    assert lost
    assert {t.name: t.count + t.lost for t in report.topics} == whole
    for name, number in lost.items():
        assert any(f"'{name}': {number} messages are lost" in p.message for p in report.problems)


def test_bytes_that_are_not_of_their_type_are_counted(write_episode, tmp_path, contract):
    with (
        EpisodeWriter(tmp_path / "bad", contract=contract, instruction="x") as writer,
        open_bag(write_episode()) as bag,
    ):
        for k, raw in enumerate(bag.messages(["/joint_states"])):
            data = bytes(raw.data)[: 30 if k in (3, 4) else None]
            writer.write(raw.topic, type_name=raw.type, message=data, stamp_ns=raw.stamp_ns)
    report = inspect_bag(tmp_path / "bad")
    assert report.verdict == 1
    assert [(t.count, t.unparsed) for t in report.topics] == [(10, 2)]
    assert "2 of 10 messages cannot be parsed" in report.problems[0].message


def _custom(path: Path, *, definition: str) -> None:
    """An mcap of a type that nobody knows, with a definition or without."""
    with path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start(profile="ros2", library="test")
        schema = writer.register_schema("lab_msgs/msg/Probe", "ros2msg", definition.encode())
        channel = writer.register_channel("/probe", "cdr", schema)
        for k in range(30):
            stamp = (k + 1) * S // 10
            data = b"\0\1\0\0" + np.array([stamp // S, stamp % S], "<u4").tobytes()
            data += np.array([1], "<u4").tobytes() + b"\0" * 4 + np.array([k], "<f8").tobytes()
            writer.add_message(channel, log_time=stamp, data=data, publish_time=stamp)
        writer.finish()


PROBE = "std_msgs/Header header\nfloat64 depth\n"
PROBE_WHOLE = (
    PROBE + "=" * 80 + "\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    + "=" * 80 + "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
)  # fmt: skip


def test_types_are_read_by_the_definition_in_the_recording(tmp_path):
    _custom(tmp_path / "own.mcap", definition=PROBE_WHOLE)
    report = inspect_bag(tmp_path / "own.mcap")
    assert report.problems == ()
    assert report.topics[0].clock is not None
    with open_bag(tmp_path / "own.mcap") as bag:
        raw = next(bag.messages())
        assert bag.types.parse(raw.data, raw.type).depth == 0.0


def test_types_that_nothing_defines_are_read_from_msg_folders(tmp_path, capsys):
    file = tmp_path / "bare.mcap"
    _custom(file, definition="")
    (problem,) = inspect_bag(file).problems
    assert "lab_msgs/msg/Probe is not defined" in problem.message
    assert "--msgs" in problem.mend
    folder = tmp_path / "ws" / "lab_msgs" / "msg"
    folder.mkdir(parents=True)
    (folder / "Probe.msg").write_text(PROBE)
    options = ["--msgs", str(tmp_path / "ws"), "--json"]
    assert main(["data", "inspect", str(file), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == []
    assert report["topics"][0]["clock"]["offset_s"] == 0.0
    (folder / "Probe.msg").write_text("float64 \n{")
    assert inspect_bag(file, msgs=[tmp_path / "ws"]).verdict == 2


def test_a_database_says_its_distribution_and_its_own_types(tmp_path):
    path = tmp_path / "own.db3"
    connection = sqlite3.connect(path)
    connection.executescript(
        DATABASE.replace("std_msgs/msg/String", "lab_msgs/msg/Probe")
        + "CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT);"
        "INSERT INTO schema VALUES(4, 'lyrical');"
        "CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT, "
        "encoding TEXT, encoded_message_definition TEXT, type_description_hash TEXT);"
    )
    connection.execute(
        "INSERT INTO message_definitions VALUES(1, 'lab_msgs/msg/Probe', 'ros2msg', ?, '')",
        ("float64 depth\n",),
    )
    connection.execute("INSERT INTO messages VALUES(1, 1, 5, ?)", (b"\0\1\0\0" + bytes(8),))
    connection.commit()
    connection.close()
    report = inspect_bag(path)
    assert (report.distribution, report.verdict, report.problems) == ("lyrical", 0, ())


def test_damaged_messages_of_a_database_are_counted_and_the_others_read(tmp_path):
    path = tmp_path / "bag.db3"
    connection = sqlite3.connect(path)
    connection.executescript(DATABASE)
    whole = b"\0\1\0\0" + np.array([3], "<u4").tobytes() + b"hi\0"
    rows = [whole, b"\x28\xb5\x2f\xfd broken", whole, "text", None]
    for k, data in enumerate(rows):
        connection.execute("INSERT INTO messages VALUES(?, 1, ?, ?)", (k, k, data))
    connection.commit()
    connection.close()
    report = inspect_bag(path)
    assert (report.verdict, report.messages) == (1, 2)
    assert report.topics[0].lost == 3
