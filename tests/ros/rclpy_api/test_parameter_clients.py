"""Parameters of other nodes: clients, events."""

from __future__ import annotations

import pytest
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.parameter import Parameter, parameter_dict_from_yaml_file
from rclpy.parameter_client import AsyncParameterClient
from rclpy.parameter_event_handler import ParameterEventHandler


@pytest.fixture
def client(ros):
    node = ros.node("server")
    node.declare_parameter("rate", 10.0, ParameterDescriptor(description="in Hz"))
    node.declare_parameter("cams.front", "on", ParameterDescriptor(dynamic_typing=True))
    client = AsyncParameterClient(ros.node("asker"), "server")
    assert client.wait_for_services(timeout_sec=10.0)
    return client


def test_a_client_reads_and_sets(ros, client):
    done = []
    values = ros.result(client.get_parameters(["rate"], callback=done.append)).values
    assert values[0].double_value == 10.0
    assert ros.until(lambda: done)
    assert list(ros.result(client.get_parameter_types(["rate"])).types) == [3]
    described = ros.result(client.describe_parameters(["rate"])).descriptors
    assert described[0].description == "in Hz"
    names = ros.result(client.list_parameters(["cams"], 1)).result.names
    assert list(names) == ["cams.front"]
    wanted = [Parameter("rate", value=20.0), Parameter("rate", value="x").to_parameter_msg()]
    results = ros.result(client.set_parameters(wanted)).results
    assert [r.successful for r in results] == [True, False]
    assert not ros.result(client.set_parameters_atomically(wanted)).result.successful
    assert ros.result(client.get_parameters(["rate"])).values[0].double_value == 20.0
    assert ros.result(client.delete_parameters(["cams.front"])).results[0].successful
    assert list(ros.result(client.list_parameters(["cams"], 1)).result.names) == []


def test_a_client_loads_a_file(ros, client, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "/**:\n  ros__parameters: {rate: 5.0}\n/server:\n  ros__parameters:\n"
        "    cams: {front: off}\n"
    )
    found = parameter_dict_from_yaml_file(str(path), use_wildcard=True, target_nodes=["/server"])
    assert set(found) == {"rate", "cams.front"}
    results = ros.result(client.load_parameter_file(str(path), use_wildcard=True)).results
    assert all(r.successful for r in results)
    assert ros.result(client.get_parameters(["rate"])).values[0].double_value == 5.0
    with pytest.raises(RuntimeError):
        parameter_dict_from_yaml_file(str(path), target_nodes=["/nobody"])


def test_a_client_without_its_node_is_not_ready(ros):
    client = AsyncParameterClient(ros.node("asker"), "nobody")
    assert not client.services_are_ready()
    assert not client.wait_for_services(timeout_sec=0.05)


def test_changes_are_told_by_parameter_and_as_a_whole(ros):
    node, listener = ros.node("server", namespace="/arm"), ros.node("asker", namespace="/arm")
    handler, rates, others, events = ParameterEventHandler(listener), [], [], []
    handle = handler.add_parameter_callback(
        "rate", "server", lambda p: rates.append(p.value.double_value)
    )
    handler.add_parameter_callback("rate", "/other", others.append)
    whole = handler.add_parameter_event_callback(lambda e: events.append(e.node))
    subscription = handler.parameter_event_subscription
    assert ros.until(lambda: subscription.get_publisher_count() >= 2)
    node.declare_parameter("rate", 1.0)
    node.set_parameters([Parameter("rate", value=2.0)])
    assert ros.until(lambda: rates == [1.0, 2.0])
    assert others == []
    assert events.count("/arm/server") == 2
    handler.remove_parameter_callback(handle)
    handler.remove_parameter_event_callback(whole)
    with pytest.raises(RuntimeError):
        handler.remove_parameter_callback(handle)
    node.set_parameters([Parameter("rate", value=3.0)])
    ros.spin(0.2)
    assert rates == [1.0, 2.0]
    handler.destroy()
