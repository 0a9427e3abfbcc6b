"""Message classes: rclpy's names, defaults and checks."""

from __future__ import annotations

import copy
import pickle
import sys
from array import array
from types import ModuleType

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from control_msgs.action import GripperCommand, ParallelGripperCommand
from control_msgs.msg import JointJog
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseWithCovariance, Quaternion
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger
from unique_identifier_msgs.msg import UUID

from fastvla_core.errors import MessageError
from fastvla_msgs.action import ExecuteTask
from fastvla_msgs.msg import ActionChunk, GuardStatus, TaskOutcome
from fastvla_msgs.srv import LoadCheckpoint
from fastvla_ros.embedded.wire.coerce import is_ndarray


def test_fields_start_at_their_defaults():
    state = JointState()
    assert (state.header.stamp.sec, state.header.frame_id) == (0, "")
    assert state.name == []
    assert state.position == array("d")
    # The only common message whose definition has a default other than zero.
    assert Quaternion().w == 1.0


def test_default_containers_are_not_shared():
    first, second = JointState(), JointState()
    first.name.append("joint1")
    first.header.stamp.sec = 3
    assert second.name == []
    assert second.header.stamp.sec == 0


def test_sequences_take_lists_tuples_and_numpy():
    state = JointState(name=("a", "b"), position=[1, 2.5], velocity=np.array([3.0, 4.0]))
    assert state.name == ["a", "b"]
    assert state.position == array("d", [1.0, 2.5])
    assert state.velocity == array("d", [3.0, 4.0])


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(6)),
        bytearray(range(6)),
        array("B", range(6)),
        np.arange(6, dtype=np.uint8),
        np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
        memoryview(bytes(range(6))),
        list(range(6)),
    ],
    ids=["bytes", "bytearray", "array", "numpy", "numpy-hwc", "memoryview", "list"],
)
def test_image_data_comes_as_any_buffer_and_leaves_as_bytes(data):
    image = Image(height=1, width=2, encoding="rgb8", step=6, data=data)
    received = deserialize_message(serialize_message(image), Image)
    assert bytes(received.data) == bytes(range(6))
    assert len(received.data) == 6
    assert np.array_equal(np.frombuffer(received.data, np.uint8), np.arange(6))


def test_received_image_is_a_read_only_view_of_the_wire_bytes():
    wire = serialize_message(Image(data=bytes(1000)))
    received = deserialize_message(wire, Image)
    assert received.data.readonly
    pixels = np.frombuffer(received.data, np.uint8)
    assert np.shares_memory(pixels, np.frombuffer(wire, np.uint8))


def test_received_number_sequences_are_arrays_as_in_rclpy():
    received = deserialize_message(serialize_message(JointState(position=[1.0])), JointState)
    assert isinstance(received.position, array)
    received.position.append(2.0)
    assert bool(received.position)


def test_fixed_arrays_are_numpy():
    pose = PoseWithCovariance()
    assert isinstance(pose.covariance, np.ndarray)
    assert pose.covariance.shape == (36,)
    pose.covariance = [float(n) for n in range(36)]
    assert pose.covariance[35] == 35.0
    with pytest.raises(MessageError, match="exactly 36"):
        pose.covariance = [0.0]
    # Of unsigned numbers too, and a number that does not fit is refused.
    identifier = UUID(uuid=list(range(16)))
    assert identifier.uuid.dtype == np.uint8
    for wrong in ([256] * 16, [0.5] * 16, "0123456789abcdef"):
        with pytest.raises(MessageError, match=r"UUID\.uuid"):
            identifier.uuid = wrong


@pytest.mark.parametrize(
    ("cls", "field", "value", "match"),
    [
        (Image, "height", 1.0, "expected an int"),
        (Image, "height", -1, "outside uint32"),
        (Image, "is_bigendian", 256, "outside uint8"),
        (Image, "encoding", b"rgb8", "expected a str"),
        (Image, "data", "abc", "buffer"),
        (Image, "data", np.zeros((4, 4, 3), np.uint8)[:, ::2], "contiguous"),
        (Image, "data", np.zeros(4, np.float32), "contiguous buffer of bytes"),
        (Image, "header", Time(), "std_msgs/msg/Header"),
        (Quaternion, "x", 1, "expected a float"),
        (Quaternion, "x", np.float32(1), "expected a float"),
        (JointState, "name", "joint1", "expected a sequence"),
        (JointState, "name", [1], "expected a str"),
        (JointState, "position", [None], "must be real number"),
        (JointState, "position", np.zeros((2, 2)), "one-dimensional"),
        (JointState, "position", np.zeros(2, complex), "float64"),
        (DiagnosticStatus, "level", 1, "bytes of length 1"),
    ],
)
def test_a_wrong_value_raises_where_it_is_assigned(cls, field, value, match):
    message = cls()
    with pytest.raises(MessageError, match=match) as caught:
        setattr(message, field, value)
    assert f".{field}" in str(caught.value)


def test_unknown_fields_are_refused_with_the_known_ones():
    with pytest.raises(MessageError, match=r"no field 'hight'") as caught:
        Image(hight=1)
    assert "height" in caught.value.mend
    with pytest.raises(AttributeError):
        Image().hight = 1


def test_a_value_beyond_float32_is_refused_when_it_is_serialised():
    feedback = ExecuteTask.Feedback(progress=1e300)
    with pytest.raises(MessageError, match="ExecuteTask_Feedback"):
        serialize_message(feedback)


def test_constants_are_on_classes_and_instances():
    assert ExecuteTask.Result.STALE_SENSOR == 5
    assert ExecuteTask.Result().SAFETY_STOP == 6
    assert TaskOutcome.SUCCESS == 1
    assert DiagnosticStatus.ERROR == b"\x02"


def test_services_and_actions_have_rclpys_parts():
    assert Trigger.Response(success=True, message="x").message == "x"
    assert LoadCheckpoint.Request(checkpoint_id="nano").checkpoint_id == "nano"
    implementation = ExecuteTask.Impl
    request = implementation.SendGoalService.Request(goal=ExecuteTask.Goal(task="pick"))
    assert request.goal.task == "pick"
    assert request.goal_id.uuid.shape == (16,)
    assert implementation.GetResultService.Response().result.outcome == 0
    assert implementation.FeedbackMessage().feedback.state == 0


def test_the_projects_interfaces_and_those_of_grippers_are_there():
    assert ActionChunk(joint_names=["a"], horizon=2, positions=[0.0, 1.0]).horizon == 2
    assert GuardStatus(latched=True, limited_joints=["joint1"]).latched
    assert JointJog(displacements=[0.1]).displacements[0] == 0.1
    assert GripperCommand.Goal().command.max_effort == 0.0
    assert ParallelGripperCommand.Goal().command.name == []


def test_field_types_have_rclpys_names():
    types = Image.get_fields_and_field_types()
    assert types["header"] == "std_msgs/Header"
    assert types["data"] == "sequence<uint8>"
    assert JointState.get_fields_and_field_types()["position"] == "sequence<double>"
    assert PoseWithCovariance.get_fields_and_field_types()["covariance"] == "double[36]"


def test_messages_compare_copy_pickle_and_print():
    image = Image(height=1, width=2, data=bytes(6))
    received = deserialize_message(serialize_message(image), Image)
    assert received == image
    assert copy.deepcopy(received) == image
    assert pickle.loads(pickle.dumps(received)) == image
    assert received != Image()
    assert repr(Time(sec=1)) == "builtin_interfaces.msg.Time(sec=1, nanosec=0)"


@pytest.mark.parametrize("length", [0, 3, 4, 20, 40, -1])
def test_cut_off_bytes_raise_and_never_read_beyond_the_end(length):
    wire = serialize_message(Image(height=1, width=2, encoding="rgb8", step=6, data=bytes(6)))
    with pytest.raises(MessageError):
        deserialize_message(wire[:length], Image)


def test_a_name_that_is_not_there_is_refused_with_those_that_are():
    import sensor_msgs.msg

    with pytest.raises(AttributeError, match="JointState"):
        sensor_msgs.msg.Imagee  # noqa: B018
    with pytest.raises(ImportError):
        from sensor_msgs.msg import Imagee  # noqa: F401


def test_numbers_are_taken_while_another_thread_still_imports_numpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", ModuleType("numpy"))
    assert not is_ndarray([1, 2])
    assert list(JointState(position=[1.0, 2.0]).position) == [1.0, 2.0]
