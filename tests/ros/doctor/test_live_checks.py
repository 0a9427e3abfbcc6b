"""Each check against a graph that is well, and against one with the fault it is there for."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.doctor import clocks, nodes, sensors, topics
from fastvla_ros.doctor.examination import LIVE_CHECKS
from fastvla_ros.doctor.graph import Endpoint, Heard, LiveGraph
from fastvla_ros.recording.streams import robot_streams, serving_streams, task_streams

CONTRACT = load_contract("tabletop")
STREAMS = (*robot_streams(CONTRACT), *serving_streams(CONTRACT), *task_streams())
TYPES = {stream.name: stream.type_name for stream in STREAMS}
JOINT_STATE = "sensor_msgs/msg/JointState"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
GRIPPER_FEEDBACK = "/gripper_controller/gripper_cmd/_action/feedback"


def endpoint(node: str, type_name: str, **options) -> Endpoint:
    return Endpoint(node=node, type_name=type_name, **options)


def heard(message: object, *, rate_hz: float, late_s: float | None = 0.01) -> Heard:
    times = np.arange(0.0, 3.0, 1 / rate_hz)
    return Heard(times_s=tuple(times.tolist()), late_s=(late_s,) * len(times), message=message)


def picture(width: int = 96, height: int = 96, encoding: str = "rgb8") -> SimpleNamespace:
    channels = {"rgb8": 3, "mono8": 1}[encoding]
    return SimpleNamespace(
        width=width, height=height, encoding=encoding, step=width * channels, is_bigendian=0,
        data=bytes(width * height * channels),
    )  # fmt: skip


def joint_state(positions=None, names=None) -> SimpleNamespace:
    positions = [0.0, 0.5, -1.0, 0.0, 0.5, 0.0, 0.02] if positions is None else positions
    return SimpleNamespace(name=list(names or CONTRACT.state_names), position=positions)


def healthy() -> LiveGraph:
    images = {camera.name: picture(camera.width, camera.height) for camera in CONTRACT.cameras}
    publishers = {
        f"/{camera.topic}": (endpoint("/driver", TYPES[camera.name], reliable=False),)
        for camera in CONTRACT.cameras
    }
    return LiveGraph(
        domain="5",
        discovery="LOCALHOST",
        namespace="/",
        listened_s=3.0,
        nodes=("/command_guard", "/driver", "/policy_server"),
        streams=STREAMS,
        publishers={
            **publishers,
            "/joint_states": (endpoint("/driver", JOINT_STATE),),
            "/command": (endpoint("/policy_server", TRAJECTORY),),
            "/joint_trajectory": (endpoint("/command_guard", TRAJECTORY),),
            GRIPPER_FEEDBACK: (
                endpoint("/driver", "control_msgs/action/ParallelGripperCommand_FeedbackMessage"),
            ),
        },
        subscriptions={
            "/front/image_raw": (endpoint("/policy_server", TYPES["front"], reliable=False),),
            "/joint_states": (endpoint("/policy_server", JOINT_STATE, reliable=False),),
            "/command": (endpoint("/command_guard", TRAJECTORY),),
            "/joint_trajectory": (endpoint("/driver", TRAJECTORY),),
        },
        types={"/front/image_raw": (TYPES["front"],)},
        heard={
            **{name: heard(image, rate_hz=30) for name, image in images.items()},
            "joint_states": heard(joint_state(), rate_hz=100),
        },
        sim_time=dict.fromkeys(("/command_guard", "/driver", "/policy_server"), False),
        states={"/policy_server": "active"},
    )


def change(**parts) -> LiveGraph:
    """A healthy graph with some of its mappings' entries replaced."""
    graph = healthy()
    merged = {
        name: {**getattr(graph, name), **value} if isinstance(value, dict) else value
        for name, value in parts.items()
    }
    return dataclasses.replace(graph, **merged)


def faults(check, graph: LiveGraph, contract=CONTRACT) -> list:
    found = [finding for finding in check(graph, contract) if finding.level != "ok"]
    assert all(finding.mend for finding in found)
    return found


def only(check, graph: LiveGraph, contract=CONTRACT):
    (finding,) = faults(check, graph, contract)
    return finding


@pytest.mark.parametrize("check", LIVE_CHECKS, ids=lambda check: check.__name__)
def test_a_healthy_robot_has_no_fault(check):
    assert faults(check, healthy()) == []


def test_a_camera_that_nobody_publishes_and_what_it_may_be_called():
    graph = change(
        publishers={"/front/image_raw": ()},
        types={"/camera/front/image_raw": (TYPES["front"],), "/chatter": ("std_msgs/msg/String",)},
    )
    finding = only(topics.check_publishers, graph)
    assert finding.level == "error"
    assert "'/front/image_raw' (front)" in finding.detail
    assert "/camera/front/image_raw" in finding.mend


def test_a_camera_for_people_may_be_missing():
    finding = only(topics.check_publishers, change(publishers={"/scene/image_raw": ()}))
    assert finding.level == "warning"


def test_two_publishers_of_one_camera():
    two = (endpoint("/driver", TYPES["front"]), endpoint("/bag_player", TYPES["front"]))
    finding = only(topics.check_publishers, change(publishers={"/front/image_raw": two}))
    assert "/bag_player, /driver" in finding.detail


def test_another_type_than_the_contract_s_is_named_with_its_node():
    wrong = (endpoint("/driver", "sensor_msgs/msg/CompressedImage"),)
    finding = only(topics.check_types, change(publishers={"/front/image_raw": wrong}))
    assert "/driver has '/front/image_raw' as sensor_msgs/msg/CompressedImage" in finding.detail
    assert "transport" in finding.mend


def test_a_controller_of_another_type_points_to_the_interface():
    wrong = (endpoint("/controller", "std_msgs/msg/Float64MultiArray"),)
    finding = only(topics.check_types, change(subscriptions={"/joint_trajectory": wrong}))
    assert "outputs.interface" in finding.mend


S = 1_000_000_000
OFFERS = {"reliable": True, "durable": True, "deadline_ns": S, "by_topic": True, "lease_ns": S}


@pytest.mark.parametrize(
    ("offered", "asked", "policy"),
    [
        ({"reliable": False}, {"reliable": True}, "reliability BEST_EFFORT"),
        ({"durable": False}, {"durable": True}, "durability VOLATILE"),
        ({"deadline_ns": None}, {"deadline_ns": S}, "deadline infinite"),
        ({"deadline_ns": 2 * S}, {"deadline_ns": S}, "deadline 2 s"),
        ({"lease_ns": None}, {"lease_ns": S}, "lease duration infinite"),
        ({"by_topic": False}, {"by_topic": True}, "liveliness AUTOMATIC"),
    ],
)
def test_each_policy_that_keeps_two_apart_is_named_with_both_sides(offered, asked, policy):
    graph = change(
        publishers={"/command": (endpoint("/policy_server", TRAJECTORY, **{**OFFERS, **offered}),)},
        subscriptions={"/command": (endpoint("/command_guard", TRAJECTORY, **asked),)},
    )
    finding = only(topics.check_qos, graph)
    assert policy in finding.detail
    assert "/policy_server" in finding.detail
    assert "/command_guard" in finding.detail
    assert finding.level == "error"


@pytest.mark.parametrize(
    "asked", [{}, {"reliable": False}, {"deadline_ns": 2 * S}, {"durable": True}]
)
def test_a_publisher_that_offers_more_is_fine(asked):
    graph = change(
        publishers={"/command": (endpoint("/policy_server", TRAJECTORY, **OFFERS),)},
        subscriptions={"/command": (endpoint("/command_guard", TRAJECTORY, **asked),)},
    )
    assert faults(topics.check_qos, graph) == []


def test_a_stream_that_says_nothing_though_it_is_published():
    finding = only(topics.check_rates, change(heard={"front": Heard()}))
    assert finding.level == "error"
    assert "no messages of front in 3 s, though /driver publishes it" in finding.detail
    assert "network buffers" in finding.mend


def test_a_slow_camera_pauses_longer_than_its_pictures_may_be_old():
    finding = only(topics.check_rates, change(heard={"front": heard(picture(), rate_hz=5)}))
    assert "front pauses for up to 0.20 s (5.0 Hz on average); it may be 0.15 s old" in (
        finding.detail
    )


def test_joints_that_come_less_often_than_commands_go():
    finding = only(
        topics.check_rates, change(heard={"joint_states": heard(joint_state(), rate_hz=20)})
    )
    assert "20.0 Hz, 30.0 Hz are needed" in finding.detail


def test_a_picture_of_another_size():
    finding = only(
        sensors.check_cameras, change(heard={"front": heard(picture(640, 480), rate_hz=30)})
    )
    assert "640x480" in finding.detail
    assert "96x96" in finding.detail


def test_a_picture_of_another_encoding():
    graph = change(heard={"front": heard(picture(encoding="mono8"), rate_hz=30)})
    finding = only(sensors.check_cameras, graph)
    assert "front" in finding.detail
    assert "mono8" in finding.detail


def test_a_joint_that_is_missing_and_what_the_robot_has():
    names = ["shoulder_pan", *CONTRACT.state_names[1:]]
    graph = change(heard={"joint_states": heard(joint_state(names=names), rate_hz=100)})
    finding = only(sensors.check_joints, graph)
    assert finding.level == "error"
    assert "joint1" in finding.detail
    assert "shoulder_pan" in finding.detail


@pytest.mark.parametrize(
    ("index", "value", "guess"),
    [(0, 120.0, "degrees"), (6, 21.0, "millimetres"), (6, 0.9, "share"), (0, 3.5, "")],
)
def test_positions_beyond_the_limits_and_their_likely_unit(index, value, guess):
    positions = joint_state().position
    positions[index] = value
    graph = change(heard={"joint_states": heard(joint_state(positions), rate_hz=100)})
    finding = only(sensors.check_joints, graph)
    assert (finding.level == "error") == bool(guess)
    assert guess in finding.mend


def test_a_joint_at_its_stop_is_within_its_limits():
    positions = [joint.upper + 0.01 for joint in CONTRACT.joints] + [0.043]
    graph = change(heard={"joint_states": heard(joint_state(positions), rate_hz=100)})
    assert faults(sensors.check_joints, graph) == []


@pytest.mark.parametrize(
    ("late_s", "word"),
    [(None, "stamps of 0"), (5.0, "5.00 s old"), (-2.0, "2.00 s in the future")],
)
def test_stamps_that_cannot_be_used(late_s, word):
    graph = change(heard={"front": heard(picture(), rate_hz=30, late_s=late_s)})
    finding = only(clocks.check_stamps, graph)
    assert finding.level == "error"
    assert word in finding.detail
    assert "sync.stamp" in finding.mend


def test_stamps_do_not_matter_where_the_time_of_receipt_counts():
    by_receipt = dataclasses.replace(
        CONTRACT, sync=dataclasses.replace(CONTRACT.sync, stamp="receive")
    )
    graph = change(heard={"front": heard(picture(), rate_hz=30, late_s=5.0)})
    assert faults(clocks.check_stamps, graph, by_receipt) == []


CLOCK = {"/clock": (endpoint("/driver", "rosgraph_msgs/msg/Clock"),)}


@pytest.mark.parametrize(
    ("sim_time", "publishers", "word"),
    [
        ({"/policy_server": True}, {}, "/policy_server wait for /clock, which nobody"),
        ({"/policy_server": True}, CLOCK, "false for /command_guard"),
        ({}, CLOCK, "no node uses it"),
        ({}, {"/clock": CLOCK["/clock"] * 2}, "2 publishers"),
    ],
)
def test_nodes_that_do_not_agree_on_the_time(sim_time, publishers, word):
    graph = change(sim_time=sim_time, publishers=publishers)
    assert word in only(clocks.check_sim_time, graph).detail


def test_the_source_of_simulated_time_need_not_follow_it():
    graph = change(sim_time={"/policy_server": True, "/command_guard": True}, publishers=CLOCK)
    assert faults(clocks.check_sim_time, graph) == []


def test_two_nodes_of_one_name():
    graph = change(nodes=("/command_guard", "/driver", "/driver", "/policy_server"))
    assert "2 nodes are called /driver" in only(nodes.check_duplicates, graph).detail


@pytest.mark.parametrize(
    ("parts", "level", "word"),
    [
        ({"nodes": ("/command_guard",)}, "warning", "does not run"),
        ({"states": {"/policy_server": "inactive"}}, "warning", "inactive"),
        ({"states": {"/policy_server": "unconfigured"}}, "warning", "unconfigured"),
    ],
)
def test_a_policy_server_that_takes_no_goals(parts, level, word):
    finding = only(nodes.check_policy_server, change(**parts))
    assert (finding.level, word in finding.detail) == (level, True)


def test_a_policy_server_that_does_not_answer():
    graph = dataclasses.replace(healthy(), states={})
    assert "RMW_IMPLEMENTATION" in only(nodes.check_policy_server, graph).mend


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"nodes": ("/policy_server",)}, "no command arrives"),
        ({"subscriptions": {"/command": ()}}, "does not listen to '/command'"),
        (
            {"publishers": {"/joint_trajectory": (endpoint("/teleop", TRAJECTORY),)}},
            "/teleop publishes '/joint_trajectory', past the guard",
        ),
    ],
)
def test_a_guard_that_guards_nothing(parts, word):
    assert word in only(nodes.check_guard, change(**parts)).detail


@pytest.mark.parametrize("listener", [None, "/black_box", "/rosbag2_recorder"])
def test_nobody_who_moves_the_robot(listener):
    listeners = (endpoint(listener, TRAJECTORY),) if listener else ()
    finding = only(nodes.check_commands, change(subscriptions={"/joint_trajectory": listeners}))
    assert "the robot will not move" in finding.detail


@pytest.mark.parametrize(
    ("servers", "word"),
    [
        ((), "nobody serves the action '/gripper_controller/gripper_cmd'"),
        (
            (endpoint("/driver", "control_msgs/action/GripperCommand_FeedbackMessage"),),
            "is a control_msgs/action/GripperCommand",
        ),
    ],
)
def test_a_gripper_that_cannot_be_commanded(servers, word):
    graph = change(publishers={GRIPPER_FEEDBACK: servers})
    assert word in only(nodes.check_gripper, graph).detail


def test_everything_is_looked_for_in_the_robot_s_namespace():
    graph = dataclasses.replace(healthy(), namespace="/left")
    assert "'/left/front/image_raw'" in faults(topics.check_publishers, graph)[0].detail
    assert "/left/policy_server does not run" in only(nodes.check_policy_server, graph).detail
