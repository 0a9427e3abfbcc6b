"""Parameters: declaration, rules, callbacks, services."""

from __future__ import annotations

import pytest
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterEvent,
    ParameterType,
    SetParametersResult,
)
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from rclpy.parameter import Parameter, get_parameter_value


def test_a_declared_parameter_has_its_default(ros):
    node = ros.node("node")
    assert node.declare_parameter("rate", 10.0).value == 10.0
    assert node.get_parameter("rate").value == 10.0
    assert node.get_parameter("rate").type_ is Parameter.Type.DOUBLE
    assert node.has_parameter("rate")
    with pytest.raises(ParameterAlreadyDeclaredException):
        node.declare_parameter("rate", 1.0)


def test_overrides_come_from_code_arguments_and_files(ros, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("/**:\n  ros__parameters: {a: 1, b: 1, c: [1.5, 2.5]}\n")
    node = ros.node(
        "node",
        cli_args=["--ros-args", "--params-file", str(path), "-p", "b:=2"],
        parameter_overrides=[Parameter("d", value="x")],
    )
    node.declare_parameters("", [("a", 0), ("b", 0), ("c", [0.0]), ("d", ""), ("e", 5)])
    found = [p.value for p in node.get_parameters(["a", "b", "c", "d", "e"])]
    assert found == [1, 2, [1.5, 2.5], "x", 5]


def test_an_override_of_another_type_is_refused(ros):
    node = ros.node("node", cli_args=["--ros-args", "-p", "rate:=fast"])
    with pytest.raises(InvalidParameterTypeException, match="DOUBLE"):
        node.declare_parameter("rate", 10.0)


def test_undeclared_parameters_are_refused_unless_they_are_allowed(ros):
    node = ros.node("node")
    with pytest.raises(ParameterNotDeclaredException):
        node.get_parameter("nope")
    with pytest.raises(ParameterNotDeclaredException):
        node.set_parameters([Parameter("nope", value=1)])
    free = ros.node("free", allow_undeclared_parameters=True)
    assert free.get_parameter("nope").type_ is Parameter.Type.NOT_SET
    assert free.set_parameters([Parameter("nope", value=1)])[0].successful
    assert free.get_parameter("nope").value == 1


def test_a_parameter_can_be_declared_with_its_type_only(ros):
    node = ros.node("node")
    node.declare_parameter("camera", Parameter.Type.STRING)
    with pytest.raises(ParameterUninitializedException):
        node.get_parameter("camera")
    assert node.get_parameter_or("camera", Parameter("camera", value="x")).value == "x"
    assert node.set_parameters([Parameter("camera", value="front")])[0].successful
    assert node.get_parameter("camera").value == "front"


def test_a_value_of_another_type_is_refused(ros):
    node = ros.node("node")
    node.declare_parameter("rate", 10.0)
    result = node.set_parameters([Parameter("rate", value=3)])[0]
    assert not result.successful
    assert "Wrong parameter type" in result.reason
    node.declare_parameter("any", 1, ParameterDescriptor(dynamic_typing=True))
    assert node.set_parameters([Parameter("any", value="x")])[0].successful


def test_ranges_and_read_only_are_kept(ros):
    node = ros.node("node")
    scale = FloatingPointRange(from_value=0.0, to_value=1.0, step=0.25)
    node.declare_parameter("scale", 0.5, ParameterDescriptor(floating_point_range=[scale]))
    count = IntegerRange(from_value=1, to_value=9, step=2)
    node.declare_parameter("count", 3, ParameterDescriptor(integer_range=[count]))
    node.declare_parameter("fixed", 1, ParameterDescriptor(read_only=True))
    accepted = [("scale", 0.75), ("scale", 1.0), ("count", 9), ("count", 5)]
    refused = [("scale", 1.01), ("scale", 0.6), ("count", 10), ("count", 4), ("fixed", 2)]
    for name, value in accepted:
        assert node.set_parameters([Parameter(name, value=value)])[0].successful
    for name, value in refused:
        assert not node.set_parameters([Parameter(name, value=value)])[0].successful
    with pytest.raises(InvalidParameterValueException):
        node.declare_parameter("bad", 2.0, ParameterDescriptor(floating_point_range=[scale]))


def test_callbacks_may_change_refuse_and_see_values(ros):
    node, seen = ros.node("node"), []
    node.declare_parameter("rate", 10.0)

    def pre(parameters):
        return [Parameter(p.name, value=p.value * 2) for p in parameters]

    def check(parameters):
        good = all(p.value <= 100 for p in parameters)
        return SetParametersResult(successful=good, reason="" if good else "too fast")

    node.add_pre_set_parameters_callback(pre)
    node.add_on_set_parameters_callback(check)
    node.add_post_set_parameters_callback(lambda ps: seen.append([p.value for p in ps]))
    assert node.set_parameters([Parameter("rate", value=20.0)])[0].successful
    refused = node.set_parameters([Parameter("rate", value=90.0)])[0]
    assert (refused.successful, refused.reason) == (False, "too fast")
    assert node.get_parameter("rate").value == 40.0
    assert seen == [[40.0]]
    node.remove_on_set_parameters_callback(check)
    assert node.set_parameters([Parameter("rate", value=90.0)])[0].successful


def test_atomic_setting_is_all_or_none(ros):
    node = ros.node("node")
    node.declare_parameters("", [("a", 1), ("b", 1)])
    result = node.set_parameters_atomically([Parameter("a", value=2), Parameter("b", value="x")])
    assert not result.successful
    assert node.get_parameter("a").value == 1


def test_prefixes_list_and_describe(ros):
    node = ros.node("node")
    node.declare_parameters("cam", [("rate", 1.0, ParameterDescriptor(description="in Hz"))])
    node.declare_parameter("cam.deep.x", 1)
    assert set(node.get_parameters_by_prefix("cam")) == {"rate", "deep.x"}
    assert node.list_parameters(["cam"], 1).names == ["cam.rate"]
    assert set(node.list_parameters(["cam"], 0).names) == {"cam.rate", "cam.deep.x"}
    descriptor = node.describe_parameter("cam.rate")
    assert (descriptor.name, descriptor.description) == ("cam.rate", "in Hz")
    assert descriptor.type == ParameterType.PARAMETER_DOUBLE
    node.undeclare_parameter("cam.rate")
    assert not node.has_parameter("cam.rate")


def test_changes_are_told_to_everybody(ros):
    node, events = ros.node("node"), []
    listener = ros.node("listener")
    listener.create_subscription(ParameterEvent, "/parameter_events", events.append, 100)
    assert ros.until(lambda: listener.count_publishers("/parameter_events") == 2)
    assert ros.until(lambda: next(listener.subscriptions).get_publisher_count() == 2)
    node.declare_parameter("rate", 10.0)
    node.set_parameters([Parameter("rate", value=20.0)])
    assert ros.until(lambda: len(events) >= 2)
    assert events[-2].new_parameters[0].name == "rate"
    assert events[-1].changed_parameters[0].value.double_value == 20.0
    assert events[-1].node == "/node"


def test_the_six_services(ros):
    node, other = ros.node("node"), ros.node("other")
    node.declare_parameter("rate", 10.0, ParameterDescriptor(description="in Hz"))
    node.declare_parameter("cams", ["front", "wrist"])

    def call(srv, name, **fields):
        client = other.create_client(srv, f"/node/{name}")
        assert client.wait_for_service(timeout_sec=5.0)
        response = ros.result(client.call_async(srv.Request(**fields)))
        other.destroy_client(client)
        return response

    values = call(GetParameters, "get_parameters", names=["rate", "cams"]).values
    assert values[0].double_value == 10.0
    assert values[1].string_array_value == ["front", "wrist"]
    assert call(GetParameters, "get_parameters", names=["nope"]).values == []
    types = call(GetParameterTypes, "get_parameter_types", names=["rate"]).types
    assert list(types) == [ParameterType.PARAMETER_DOUBLE]
    listed = call(ListParameters, "list_parameters").result.names
    assert {"rate", "cams", "use_sim_time"} <= set(listed)
    described = call(DescribeParameters, "describe_parameters", names=["rate"]).descriptors
    assert described[0].description == "in Hz"
    good = Parameter("rate", value=20.0).to_parameter_msg()
    bad = Parameter("nope", value=1).to_parameter_msg()
    results = call(SetParameters, "set_parameters", parameters=[good, bad]).results
    assert [r.successful for r in results] == [True, False]
    assert node.get_parameter("rate").value == 20.0
    atomic = call(SetParametersAtomically, "set_parameters_atomically", parameters=[good]).result
    assert atomic.successful


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "BOOL"),
        (1, "INTEGER"),
        (1.0, "DOUBLE"),
        ("x", "STRING"),
        ([b"x"], "BYTE_ARRAY"),
        ([True], "BOOL_ARRAY"),
        ([1, 2], "INTEGER_ARRAY"),
        ([1.0], "DOUBLE_ARRAY"),
        (["x"], "STRING_ARRAY"),
        (None, "NOT_SET"),
    ],
)
def test_every_type_survives_the_way_into_a_message_and_back(value, kind):
    parameter = Parameter("p", value=value)
    assert parameter.type_ is Parameter.Type[kind]
    back = Parameter.from_parameter_msg(parameter.to_parameter_msg())
    assert (back.name, back.type_) == ("p", parameter.type_)
    assert (list(back.value) if isinstance(value, list) else back.value) == value


def test_values_without_a_type_are_refused():
    with pytest.raises(TypeError):
        Parameter("p", value=object())
    with pytest.raises(TypeError):
        Parameter("p", value=[1, "x"])
    with pytest.raises(ValueError, match="do not agree"):
        Parameter("p", Parameter.Type.DOUBLE, 1)


def test_texts_are_read_as_yaml():
    assert get_parameter_value("2.5").double_value == 2.5
    assert list(get_parameter_value("[1, 2]").integer_array_value) == [1, 2]
    assert get_parameter_value("hello").string_value == "hello"
