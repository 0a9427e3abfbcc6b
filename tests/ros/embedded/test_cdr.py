"""Our CDR against rosbags', for random values of every kind of field."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore

from fastvla_ros.embedded.wire.fields import PLACEHOLDER
from fastvla_ros.embedded.wire.messages import deserialize, serialize
from fastvla_ros.embedded.wire.runtime import wire_runtime

ORACLE = get_typestore(Stores.ROS2_JAZZY)
FACTORY = wire_runtime().factory

# Every alignment, every kind of sequence, nesting, bounds and empty messages.
TYPES = [
    "builtin_interfaces/msg/Time",
    "diagnostic_msgs/msg/DiagnosticArray",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "rcl_interfaces/msg/ParameterDescriptor",
    "rcl_interfaces/msg/ParameterEvent",
    "rcl_interfaces/msg/Log",
    "rmw_dds_common/msg/ParticipantEntitiesInfo",
    "sensor_msgs/msg/CameraInfo",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/JointState",
    "sensor_msgs/msg/PointCloud2",
    "std_msgs/msg/ByteMultiArray",
    "std_msgs/msg/Char",
    "std_msgs/msg/Empty",
    "std_msgs/msg/Float32MultiArray",
    "std_msgs/msg/Int16MultiArray",
    "std_msgs/msg/UInt64MultiArray",
    "trajectory_msgs/msg/JointTrajectory",
    "unique_identifier_msgs/msg/UUID",
    "visualization_msgs/msg/Marker",
]

INTEGERS = {
    name: (np.iinfo(name).min, np.iinfo(name).max)
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)


def base_values(name):
    """Values as rosbags wants them."""
    if name == "string":
        return TEXT
    if name == "bool":
        return st.booleans()
    if name in ("byte", "char"):
        return st.integers(0, 127)
    if name in INTEGERS:
        return st.integers(*INTEGERS[name])
    return st.floats(width=32 if name == "float32" else 64, allow_nan=False)


def values(desc):
    kind, detail = desc
    if kind == Nodetype.BASE:
        return base_values(detail[0])
    if kind == Nodetype.NAME:
        return messages(detail)
    item, size = detail
    bounds = {"min_size": size, "max_size": size} if kind == Nodetype.ARRAY else {"max_size": 4}
    if kind == Nodetype.SEQUENCE and size:
        bounds = {"max_size": min(size, 4)}
    items = st.lists(values(item), **bounds)
    if item[0] == Nodetype.BASE and item[1][0] != "string":
        dtype = {"bool": np.bool_, "byte": np.int8, "char": np.uint8}.get(item[1][0], item[1][0])
        return items.map(lambda found: np.array(found, dtype))
    return items


def messages(name):
    fields = ORACLE.fielddefs[name][1]
    parts = {field: values(desc) for field, desc in fields}
    if PLACEHOLDER in parts:
        parts[PLACEHOLDER] = st.just(0)
    return st.fixed_dictionaries(parts).map(lambda found: ORACLE.types[name](**found))


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_bytes_from_rosbags_are_read_and_written_back_the_same(name, data):
    expected = bytes(ORACLE.serialize_cdr(data.draw(messages(name)), name))
    message = deserialize(expected, FACTORY.message(name))
    assert bytes(serialize(message)) == expected


@pytest.mark.parametrize("name", TYPES)
def test_default_messages_are_what_rosbags_reads(name):
    raw = bytes(serialize(FACTORY.message(name)()))
    again = ORACLE.serialize_cdr(ORACLE.deserialize_cdr(raw, name), name)
    assert bytes(again) == raw


# From `ros2 topic info -v` and rosidl's generated descriptions in Jazzy.
HASHES = {
    "sensor_msgs/msg/Image": (
        "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"
    ),
    "sensor_msgs/msg/JointState": (
        "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e"
    ),
}


@pytest.mark.parametrize(("name", "expected"), HASHES.items())
def test_type_hashes_are_those_of_jazzy(name, expected):
    assert FACTORY.store.type_hash(name) == expected
