"""Bags on disk: written whole, bounded in number and size, never more than our own removed."""

from __future__ import annotations

import random

import pytest

from fastvla_core.errors import BagError
from fastvla_ros.black_box import store as store_module
from fastvla_ros.black_box.ring import Recorded
from fastvla_ros.black_box.store import BagStore
from fastvla_ros.recording.streams import Stream
from tests.core.bags.small_disk import can_mount, python_on_small_disk
from training.bags.reader import open_bag

MIB = 1 << 20
FRONT = Stream(name="front", topic="/front", type_name="sensor_msgs/msg/Image", is_camera=True)
TEXT = Stream(name="task", topic="/task", type_name="std_msgs/msg/String")


def messages(count: int = 3, *, stream: Stream = TEXT, size: int = 8) -> list[Recorded]:
    data = b"\0\1\0\0" + bytes(size)
    return [
        Recorded(stream=stream, topic=stream.topic, data=data, stamp_ns=k, steady_ns=k)
        for k in range(count)
    ]


def write(store: BagStore, **options):
    return store.write(
        **{"messages": messages(), "reason": "TIMEOUT", "information": {}, **options}
    )


@pytest.fixture
def store(tmp_path):
    return BagStore(tmp_path / "kept", keep=3, max_bytes=100 * MIB)


def test_a_bag_holds_the_messages_and_what_is_known(store):
    kept = write(store, information={"fastvla.instruction": "wave"})
    assert "_TIMEOUT" in kept.folder.name
    with open_bag(kept.folder) as bag:
        assert not bag.problems
        assert bag.instruction == "wave"
        assert len(list(bag.messages())) == kept.messages == 3


def test_what_is_written_is_let_go_of_at_once(store, monkeypatch):
    waiting = messages(count=5)
    left: list[int] = []

    class Writer(store_module.BagWriter):
        def write(self, topic, **options):
            left.append(len(waiting))
            super().write(topic, **options)

    monkeypatch.setattr(store_module, "BagWriter", Writer)
    write(store, messages=waiting)
    assert left == [4, 3, 2, 1, 0]


def test_only_the_newest_are_kept(store):
    written = [write(store).folder for _ in range(5)]
    assert store.bags() == written[2:]


def test_all_bags_together_stay_within_their_size(tmp_path):
    store = BagStore(tmp_path, keep=100, max_bytes=3 * MIB)
    # LZ4 would shrink zeros to nothing.
    data = b"\0\1\0\0" + random.Random(1).randbytes(MIB)
    message = Recorded(stream=TEXT, topic="/t", data=data, stamp_ns=0, steady_ns=0)
    written = [write(store, messages=[message]).folder for _ in range(5)]
    assert store.bags() == written[3:]


def test_what_is_not_ours_is_never_removed(store):
    store.folder.mkdir()
    (store.folder / "20200101-000000-000_holiday photos").mkdir()
    (store.folder / "20200101-000000-000_TIMEOUT.txt").write_text("notes")
    for _ in range(5):
        write(store)
    assert len(list(store.folder.iterdir())) == 5


def test_an_interrupted_bag_counts_and_goes_like_the_others(store):
    store.folder.mkdir()
    (store.folder / "20200101-000000-000_TIMEOUT.partial").mkdir()
    for _ in range(3):
        write(store)
    assert not (store.folder / "20200101-000000-000_TIMEOUT.partial").exists()


def test_two_ends_at_one_time_have_two_names(store):
    assert len({write(store).folder for _ in range(3)}) == 3


def test_without_room_for_the_pictures_the_rest_is_kept(store, monkeypatch):
    free(monkeypatch, 100 * MIB)
    large = messages(40, stream=FRONT, size=MIB)
    kept = write(store, messages=[*messages(), *large])
    assert kept.without_pictures
    assert kept.messages == 3


def test_a_full_disk_is_one_message_and_costs_no_older_bag(store, monkeypatch):
    older = write(store).folder
    free(monkeypatch, 1 * MIB)
    with pytest.raises(BagError, match="the disk is full") as caught:
        write(store)
    assert "directory" in caught.value.mend
    assert store.bags() == [older]


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BagError, match="cannot be written") as caught:
        write(BagStore(tmp_path / "file" / "kept", keep=3, max_bytes=MIB))
    assert "directory" in caught.value.mend


@pytest.mark.skipif(not can_mount(), reason="no user namespaces here")
def test_a_disk_that_fills_up_while_pictures_are_written_still_takes_the_rest(tmp_path):
    code = """
import pathlib, random, sys
from fastvla_ros.black_box import store as store_module
from tests.ros.black_box.test_store import FRONT, Recorded, messages
store_module._MARGIN_BYTES = -(1 << 30)  # somebody else writes meanwhile
disk = pathlib.Path(sys.argv[1])
store = store_module.BagStore(disk, keep=3, max_bytes=1 << 30)
data = b"\\0\\1\\0\\0" + random.Random(1).randbytes(1 << 20)
pictures = [Recorded(stream=FRONT, topic="/f", data=data, stamp_ns=k, steady_ns=k)
            for k in range(30)]
kept = store.write([*pictures, *messages()], reason="TIMEOUT", information={})
print(kept.without_pictures, kept.messages, len(list(disk.iterdir())))
"""
    assert python_on_small_disk(code, folder=tmp_path, size="16m").split() == ["True", "3", "1"]


def free(monkeypatch, size: int) -> None:
    class Usage:
        free = size

    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: Usage)
