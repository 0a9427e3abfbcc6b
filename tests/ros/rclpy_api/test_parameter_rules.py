"""What may be declared and set: descriptors, callbacks, undeclared parameters."""

from __future__ import annotations

import pytest
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    ParameterValue,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterImmutableException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from rclpy.parameter import Parameter

NOT_SET = Parameter.Type.NOT_SET
# Its fields are filled in by a declaration, so none but a wrong one may share it.
ANYTHING = ParameterDescriptor(dynamic_typing=True)


@pytest.fixture
def node(ros):
    return ros.node("node")


def refused(node, name, value):
    (result,) = node.set_parameters([Parameter(name, value=value)])
    return "" if result.successful else result.reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1, ""),
        (9, ""),
        (5, ""),
        (4, "not a valid step. Min: 1, max: 9, value: 4, step: 2"),
        (0, "out of range. Min: 1, Max: 9, value: 0"),
        (11, "out of range"),
    ],
)
def test_integers_keep_their_range_and_step(node, value, reason):
    allowed = IntegerRange(from_value=1, to_value=9, step=2)
    node.declare_parameter("n", 3, ParameterDescriptor(integer_range=[allowed]))
    found = refused(node, "n", value)
    assert (reason in found) if reason else not found


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0.0, ""),
        (0.75, ""),
        (1.0 + 1e-7, ""),
        (0.25 + 1e-8, ""),
        (0.6, "not close enough to a valid step"),
        (1.01, "out of range"),
        (-0.1, "out of range"),
    ],
)
def test_numbers_keep_their_range_and_step_nearly(node, value, reason):
    allowed = FloatingPointRange(from_value=0.0, to_value=1.0, step=0.25)
    node.declare_parameter("x", 0.5, ParameterDescriptor(floating_point_range=[allowed]))
    found = refused(node, "x", value)
    assert (reason in found) if reason else not found


def test_a_range_may_be_written_backwards_and_holds_at_declaration(node):
    allowed = FloatingPointRange(from_value=1.0, to_value=0.0)
    descriptor = ParameterDescriptor(floating_point_range=[allowed])
    assert node.declare_parameter("x", 0.3, descriptor).value == 0.3
    with pytest.raises(InvalidParameterValueException, match="out of range"):
        node.declare_parameter("y", 2.0, descriptor)
    assert not node.has_parameter("y")


def test_a_read_only_parameter_keeps_the_value_it_started_with(ros):
    node = ros.node("node", parameter_overrides=[Parameter("n", value=5)])
    node.declare_parameter("n", 1, ParameterDescriptor(read_only=True))
    assert "read-only" in refused(node, "n", 2)
    assert node.get_parameter("n").value == 5
    with pytest.raises(ParameterImmutableException):
        node.undeclare_parameter("n")
    with pytest.raises(ParameterImmutableException):
        node.set_descriptor("n", ParameterDescriptor())


def test_types_are_kept_unless_the_descriptor_lets_them_change(node):
    node.declare_parameter("fixed", 1)
    assert "Wrong parameter type" in refused(node, "fixed", 1.0)
    assert "cannot be undeclared" in refused(node, "fixed", None)
    node.declare_parameter("any", 1, ParameterDescriptor(dynamic_typing=True))
    assert not refused(node, "any", "x")
    assert node.describe_parameter("any").type == ParameterType.PARAMETER_STRING
    assert not refused(node, "any", None)
    assert not node.has_parameter("any")


def test_a_declaration_needs_a_type(node):
    with pytest.raises(ValueError, match="NOT_SET"):
        node.declare_parameter("a", NOT_SET)
    with pytest.raises(ValueError, match="NOT_SET"):
        node.declare_parameter("a", None, ParameterDescriptor())
    with pytest.raises(ValueError, match="dynamic_typing"):
        node.declare_parameter(
            "a", Parameter.Type.INTEGER, ParameterDescriptor(dynamic_typing=True)
        )
    with pytest.warns(UserWarning, match="only providing its name is deprecated"):
        assert node.declare_parameter("a").value is None
    assert node.declare_parameter("b", None, ParameterDescriptor(dynamic_typing=True)).value is None
    assert node.get_parameter("b").value is None


@pytest.mark.parametrize("entry", [(), ("a", 1, ParameterDescriptor(), 2), (1, 2), ("a", 1, 2)])
def test_entries_of_declare_parameters_have_a_shape(node, entry):
    with pytest.raises(TypeError):
        node.declare_parameters("", [entry])


def test_nothing_is_declared_when_one_name_is_taken(node):
    node.declare_parameter("ns.b", 1)
    with pytest.raises(ParameterAlreadyDeclaredException, match=r"ns\.b"):
        node.declare_parameters("ns", [("a", 1), ("b", 1)])
    assert not node.has_parameter("ns.a")


def test_overrides_can_be_ignored(ros):
    node = ros.node("node", parameter_overrides=[Parameter("n", value=5)])
    assert node.declare_parameter("n", 1, ignore_override=True).value == 1
    wrong = ros.node("wrong", parameter_overrides=[Parameter("n", value="x")])
    with pytest.raises(InvalidParameterTypeException, match="INTEGER"):
        wrong.declare_parameter("n", 1)


def test_types_can_be_asked_for(node):
    node.declare_parameter("n", 1)
    node.declare_parameter("later", Parameter.Type.STRING)
    assert node.get_parameter_types(["n", "later"]) == [
        ParameterType.PARAMETER_INTEGER,
        ParameterType.PARAMETER_NOT_SET,
    ]
    with pytest.raises(ParameterNotDeclaredException):
        node.get_parameter_type("nope")
    with pytest.raises(ParameterUninitializedException):
        node.get_parameter("later")


def test_a_descriptor_can_be_replaced(node):
    node.declare_parameter("n", 1)
    narrow = ParameterDescriptor(
        type=ParameterType.PARAMETER_INTEGER,
        integer_range=[IntegerRange(from_value=5, to_value=9)],
    )
    with pytest.raises(InvalidParameterValueException):
        node.set_descriptor("n", narrow)
    seven = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=7)
    assert node.set_descriptor("n", narrow, seven).integer_value == 7
    assert "out of range" in refused(node, "n", 1)


def test_undeclared_parameters_come_and_go_where_they_are_allowed(ros):
    node = ros.node("node", allow_undeclared_parameters=True)
    assert not refused(node, "x", 1)
    assert not refused(node, "x", "text")
    assert not refused(node, "x", None)
    assert not node.has_parameter("x")
    assert node.get_parameter("x").type_ is NOT_SET
    assert node.describe_parameter("x").type == ParameterType.PARAMETER_NOT_SET


def test_pre_set_callbacks_see_what_was_asked_for_and_their_answers_are_joined(node):
    node.declare_parameters("", [("a", 1), ("b", 1)])
    node.add_pre_set_parameters_callback(lambda ps: [*ps, Parameter("b", value=ps[0].value + 1)])
    assert node.set_parameters([Parameter("a", value=5)])[0].successful
    assert [p.value for p in node.get_parameters(["a", "b"])] == [5, 6]


def test_a_pre_set_callback_that_leaves_nothing_refuses(node):
    node.declare_parameter("a", 1)
    node.add_pre_set_parameters_callback(lambda ps: [])
    assert "cannot be empty" in refused(node, "a", 2)


def test_the_latest_on_set_callback_is_asked_first_and_the_first_refusal_counts(node):
    node.declare_parameter("a", 1)
    order = []

    def check(name, good):
        def callback(parameters):
            order.append(name)
            return SetParametersResult(successful=good, reason="" if good else name)

        return callback

    node.add_on_set_parameters_callback(check("first", good=True))
    node.add_on_set_parameters_callback(check("second", good=False))
    assert refused(node, "a", 2) == "second"
    assert order == ["second"]
    assert node.get_parameter("a").value == 1


def test_callbacks_see_declarations_but_the_first_kind_does_not(node):
    pre, on, post = [], [], []
    node.add_pre_set_parameters_callback(lambda ps: pre.extend(ps) or ps)
    node.add_on_set_parameters_callback(
        lambda ps: on.extend(p.name for p in ps) or SetParametersResult(successful=True)
    )
    node.add_post_set_parameters_callback(lambda ps: post.extend(p.name for p in ps))
    node.declare_parameter("a", 1)
    assert (pre, on, post) == ([], ["a"], ["a"])


def test_an_exception_in_a_callback_reaches_who_sets(node):
    def fail(parameters):
        raise ZeroDivisionError

    node.declare_parameter("a", 1)
    node.add_on_set_parameters_callback(fail)
    with pytest.raises(ZeroDivisionError):
        node.set_parameters([Parameter("a", value=2)])
    with pytest.raises(ValueError, match="not in list"):
        node.remove_post_set_parameters_callback(fail)


def test_lists_need_a_list_of_prefixes_and_a_depth(node):
    node.declare_parameters("", [("b.x.y", 1), ("a", 1), ("b.z", 1)])
    found = node.list_parameters(["b"], 0)
    assert (list(found.names), list(found.prefixes)) == (["b.x.y", "b.z"], ["b.x", "b"])
    for wrong in (("b", 0), ([1], 0), (["b"], 1.5)):
        with pytest.raises(TypeError):
            node.list_parameters(*wrong)
    with pytest.raises(ValueError, match="depth"):
        node.list_parameters([], -1)
