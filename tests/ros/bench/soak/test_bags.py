"""Bags are read to their last message, and what is missing is told."""

from __future__ import annotations

import json

import pytest

from fastvla_core.bags.writer import BagWriter
from fastvla_core.errors import BagError
from fastvla_ros.bench.soak.bags import BagLog, read_to_the_end


def write_bag(folder, *, messages: int = 500, ends=()):
    information = {"fastvla.black_box.ends": json.dumps(list(ends))}
    with BagWriter(folder, information=information) as writer:
        for k in range(messages):
            data = b"\0\1\0\0" + k.to_bytes(4, "little") * 50
            writer.write("/text", type_name="std_msgs/msg/String", message=data, stamp_ns=1 + k)
    return folder


def cut(folder) -> None:
    """Take the end of the file away, as a disk does that lost it."""
    (file,) = folder.glob("*.mcap")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def test_a_whole_bag(tmp_path):
    found = read_to_the_end(write_bag(tmp_path / "bag"))
    assert found.is_whole
    assert (found.messages, found.promised, found.last_ns) == (500, 500, 500)


def test_a_bag_that_lost_its_end_is_not_whole(tmp_path):
    cut(write_bag(tmp_path / "bag"))
    assert not read_to_the_end(tmp_path / "bag").is_whole


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(BagError):
        read_to_the_end(tmp_path / "bag")


def test_new_bags_are_read_once_and_their_ends_known(tmp_path):
    log = BagLog(tmp_path / "kept")
    assert log.look() == []
    end = {"goal": "0f", "code": "TIMEOUT", "message": ""}
    write_bag(tmp_path / "kept" / "20260101-000000-000_TIMEOUT", ends=[end])
    assert log.look() == []
    damaged = write_bag(tmp_path / "kept" / "20260101-000000-001_TIMEOUT")
    cut(damaged)
    (wrong,) = log.look()
    assert damaged.name in wrong
    assert log.look() == []
    assert log.ends == {("0f", "TIMEOUT")}
    assert log.read == 2
