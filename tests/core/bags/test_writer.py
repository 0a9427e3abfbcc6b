"""Whatever happens while a bag is written, what was taken can be read."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from fastvla_core.bags import definitions
from fastvla_core.bags.writer import BagWriter
from fastvla_core.errors import BagError
from tests.core.bags.small_disk import can_mount, python_on_small_disk
from training.bags.reader import open_bag

STRING = "std_msgs/msg/String"

needs_small_disk = pytest.mark.skipif(not can_mount(), reason="no user namespaces here")


def test_the_time_of_sending_can_differ_from_the_time_of_receipt(tmp_path):
    with BagWriter(tmp_path / "x", information={}) as bag:
        bag.write("a", type_name=STRING, message=b"\0\1\0\0", stamp_ns=9, publish_ns=3)
    with (tmp_path / "x" / "x_0.mcap").open("rb") as file:
        (message,) = [m for _, _, m in make_reader(file).iter_messages()]
    assert (message.log_time, message.publish_time) == (9, 3)


def test_information_and_ending_stand_in_the_metadata(tmp_path):
    bag = BagWriter(tmp_path / "x", information={"fastvla.instruction": "wave"})
    bag.finish({"fastvla.outcome": "success"})
    with AnyReader([tmp_path / "x"]) as reader:
        assert reader.message_count == 0
    text = (tmp_path / "x" / "metadata.yaml").read_text()
    assert "fastvla.instruction: wave" in text
    assert "fastvla.outcome: success" in text


@pytest.mark.parametrize("name", ["ActionChunk", "GuardStatus", "TaskOutcome"])
def test_our_own_messages_are_known(name):
    assert definitions.definition(f"fastvla_msgs/msg/{name}")
    assert definitions.type_hash(f"fastvla_msgs/msg/{name}").startswith("RIHS01_")


def test_readers_decode_the_feedback_of_the_action(tmp_path):
    store = definitions.typestore()
    uuid = store.types["unique_identifier_msgs/msg/UUID"]
    part = store.types["fastvla_msgs/msg/ExecuteTask_Feedback"]
    feedback = part(
        state=2, elapsed_s=1.5, progress=0.0, chunk_index=3, queue_depth=0, inference_s=0.1,
        oldest_observation_age_s=0.0, camera_skew_s=0.0, blocking_stream="wrist",
    )  # fmt: skip
    message = store.types[definitions.FEEDBACK](
        goal_id=uuid(uuid=np.zeros(16, np.uint8)), feedback=feedback
    )
    data = bytes(store.serialize_cdr(message, definitions.FEEDBACK))
    with BagWriter(tmp_path / "x", information={}) as bag:
        bag.write("f", type_name=definitions.FEEDBACK, message=data, stamp_ns=1)
    with AnyReader([tmp_path / "x"]) as reader:
        ((connection, _, raw),) = list(reader.messages())
        read = reader.deserialize(raw, connection.msgtype)
    assert (read.feedback.chunk_index, read.feedback.blocking_stream) == (3, "wrist")


def test_what_was_flushed_survives_a_killed_process(tmp_path):
    code = (
        "import os, sys; from fastvla_core.bags.writer import BagWriter\n"
        "bag = BagWriter(sys.argv[1], information={})\n"
        "for i in range(5):\n"
        f"    bag.write('a', type_name='{STRING}', message=b'\\0\\1\\0\\0', stamp_ns=i)\n"
        "bag.flush()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False, timeout=60)
    with open_bag(tmp_path / "x.partial") as bag:
        assert len(list(bag.messages())) == 5


_FILL = f"""
import pathlib, random, sys
from fastvla_core.bags.writer import BagWriter
from fastvla_core.errors import BagError
from rosbags.highlevel import AnyReader
disk = pathlib.Path(sys.argv[1])
bag = BagWriter(disk / "x", information={{"fastvla.instruction": "wave"}})
message = b"\\0\\1\\0\\0" + random.Random(0).randbytes(100_000)
taken = 0
try:
    while True:
        bag.write("a", type_name="{STRING}", message=message + taken.to_bytes(4, "big"),
                  stamp_ns=taken)
        taken += 1
except BagError as error:
    print(error.message, "|", error.mend)
bag.close()
with AnyReader([disk / "x"]) as reader:
    read = [raw[-4:] for _, _, raw in reader.messages()]
assert read == [i.to_bytes(4, "big") for i in range(taken)], (len(read), taken)
assert sorted(p.name for p in (disk / "x").iterdir()) == ["metadata.yaml", "x_0.mcap"]
print(taken)
"""


@needs_small_disk
def test_a_full_disk_keeps_every_message_that_was_taken(tmp_path):
    said = python_on_small_disk(_FILL, folder=tmp_path)
    message, taken = said.strip().splitlines()
    assert "the disk is full; what was recorded until now is kept | make room" in message
    assert int(taken) > 30


@needs_small_disk
def test_a_disk_that_is_full_from_the_start_leaves_nothing(tmp_path):
    code = """
import pathlib, sys
from fastvla_core.bags.writer import BagWriter
from fastvla_core.errors import BagError
disk = pathlib.Path(sys.argv[1])
try:
    BagWriter(disk / "x", information={})
except BagError as error:
    print(error.message)
assert not list(disk.iterdir()), list(disk.iterdir())
"""
    assert "nothing was recorded" in python_on_small_disk(code, folder=tmp_path, size="1m")


def test_an_existing_bag_is_not_touched(tmp_path):
    BagWriter(tmp_path / "x", information={}).close()
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "x", information={})
