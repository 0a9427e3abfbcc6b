"""Whatever a file holds, `inspect` reports and `convert` keeps the others: nothing is raised."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, IndexType, Writer

from fastvla_core.bags.definitions import definition
from tests.training.bags.test_reader import DATABASE
from training.bags import messages
from training.bags.inspection import NOT_READABLE, READABLE, READABLE_WITH_LOSSES, inspect_bag

VERDICTS = (READABLE, READABLE_WITH_LOSSES, NOT_READABLE)


def _message(k: int) -> bytes:
    message = messages.joint_state_message(
        ["a", "b"], stamp_ns=(k + 1) * 10**7, positions=np.asarray([0.1 * k, 1.0])
    )
    return messages.to_cdr(message, type_name=messages.JOINT_STATE)


def _mcap(compression: CompressionType, *, chunked: bool = True) -> bytes:
    file = io.BytesIO()
    writer = Writer(
        file, chunk_size=600, compression=compression, use_chunking=chunked,
        index_types=IndexType.ALL, enable_data_crcs=True,
    )  # fmt: skip
    writer.start(profile="ros2", library="test")
    text = definition(messages.JOINT_STATE).encode()
    schema = writer.register_schema(messages.JOINT_STATE, "ros2msg", text)
    channel = writer.register_channel("/joint_states", "cdr", schema)
    for k in range(30):
        data = _message(k)
        if k % 3 == 0:
            data = zstandard.ZstdCompressor().compress(data)
        writer.add_message(channel, log_time=(k + 1) * 10**7, data=data, publish_time=k)
    writer.add_metadata("fastvla.episode", {"fastvla.instruction": "lift"})
    writer.finish()
    return file.getvalue()


def _database(folder: Path) -> bytes:
    path = folder / "seed.db3"
    connection = sqlite3.connect(path)
    connection.executescript(DATABASE.replace("std_msgs/msg/String", messages.JOINT_STATE))
    for k in range(30):
        connection.execute(
            "INSERT INTO messages VALUES(?, 1, ?, ?)", (k, (k + 1) * 10**7, _message(k))
        )
    connection.commit()
    connection.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> dict[str, bytes]:
    """Whole files of every kind."""
    plain = _mcap(CompressionType.NONE)
    return {
        "none.mcap": plain,
        "lz4.mcap": _mcap(CompressionType.LZ4),
        "zstd.mcap": _mcap(CompressionType.ZSTD),
        "loose.mcap": _mcap(CompressionType.NONE, chunked=False),
        "file.mcap.zstd": zstandard.ZstdCompressor().compress(plain),
        "bag.db3": _database(tmp_path_factory.mktemp("seed")),
    }


NAMES = ("none.mcap", "lz4.mcap", "zstd.mcap", "loose.mcap", "file.mcap.zstd", "bag.db3")


@pytest.mark.parametrize("name", NAMES)
def test_the_seeds_are_whole(seeds, tmp_path, name):
    (tmp_path / name).write_bytes(seeds[name])
    report = inspect_bag(tmp_path / name)
    assert (report.verdict, report.messages, report.problems) == (0, 30, ())


damage = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from([1, 0x80, 0xFF, 0x10])),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("name", NAMES)
@given(flips=damage, cut=st.floats(0, 1))
@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_flipped_bits_and_cuts_never_raise(seeds, tmp_path, name, flips, cut):
    content = bytearray(seeds[name])
    for where, mask in flips:
        content[int(where * len(content))] ^= mask
    # Every other example is not cut.
    content = content[: int(2 * cut * len(content))]
    (tmp_path / name).write_bytes(content)
    report = inspect_bag(tmp_path / name)
    assert report.verdict in VERDICTS
    assert all(problem.message and problem.mend for problem in report.problems)
    assert all("please report" not in problem.mend for problem in report.problems)
    if report.verdict == NOT_READABLE:
        assert report.problems


@given(content=st.binary(max_size=300))
@settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_any_metadata_is_survived(seeds, tmp_path, content):
    folder = tmp_path / "bag"
    folder.mkdir(exist_ok=True)
    (folder / "lz4_0.mcap").write_bytes(seeds["lz4.mcap"])
    (folder / "metadata.yaml").write_bytes(b"rosbag2_bagfile_information:\n " + content)
    assert inspect_bag(folder).messages == 30


STRANGE = [
    "rosbag2_bagfile_information: {relative_file_paths: [3]}",
    "rosbag2_bagfile_information: {relative_file_paths: ['../../etc', lz4_0.mcap]}",
    "rosbag2_bagfile_information: {relative_file_paths: 5, message_count: x}",
    "rosbag2_bagfile_information: {topics_with_message_count: [1, {topic_metadata: 3}]}",
    "rosbag2_bagfile_information: {custom_data: {1: [2]}, ros_distro: [x]}",
    "[" * 3000,
    "a: &a [*a]",
]


@pytest.mark.parametrize("text", STRANGE)
def test_strange_metadata_does_not_hide_the_recording(seeds, tmp_path, text):
    (tmp_path / "lz4_0.mcap").write_bytes(seeds["lz4.mcap"])
    (tmp_path / "metadata.yaml").write_text(text)
    assert inspect_bag(tmp_path).messages == 30


def test_a_wrong_checksum_over_messages_outside_of_chunks_is_a_loss(seeds, tmp_path):
    content = bytearray(seeds["loose.mcap"])
    # The name of a joint, in a message that is not compressed.
    content[content.index(b"\x02\x00\x00\x00b\x00") + 4] ^= 2
    (tmp_path / "loose.mcap").write_bytes(content)
    report = inspect_bag(tmp_path / "loose.mcap")
    assert report.verdict == 1
    assert any("checksum over its messages is wrong" in p.message for p in report.problems)
