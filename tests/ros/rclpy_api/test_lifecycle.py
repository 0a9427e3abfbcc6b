"""Lifecycle nodes."""

from __future__ import annotations

import itertools

import pytest
from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode, SimpleManagedEntity, TransitionCallbackReturn
from std_msgs.msg import UInt32

OK = TransitionCallbackReturn.SUCCESS
NUMBERS = itertools.count()


class Managed(LifecycleNode):
    """Answers each transition with what `answers` says."""

    def __init__(self, **kwargs):
        # rclpy's state machines stay on the graph for a while.
        super().__init__(f"managed{next(NUMBERS)}", **kwargs)
        self.calls, self.answers = [], {}

    def _answer(self, name, state):
        self.calls.append((name, state.label))
        answer = self.answers.get(name, OK)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_configure(self, state):
        return self._answer("configure", state)

    def on_activate(self, state):
        super().on_activate(state)
        return self._answer("activate", state)

    def on_deactivate(self, state):
        super().on_deactivate(state)
        return self._answer("deactivate", state)

    def on_cleanup(self, state):
        return self._answer("cleanup", state)

    def on_shutdown(self, state):
        return self._answer("shutdown", state)

    def on_error(self, state):
        return self._answer("error", state)


@pytest.fixture
def managed(ros):
    return ros.add(Managed(context=ros.context))


@pytest.fixture
def call(ros, managed):
    node = ros.node("manager")

    def send(srv, name, **fields):
        client = node.create_client(srv, f"/{managed.get_name()}/{name}")
        assert client.wait_for_service(timeout_sec=5.0)
        response = ros.result(client.call_async(srv.Request(**fields)))
        node.destroy_client(client)
        return response

    return send


def state(call):
    return call(GetState, "get_state").current_state.label


def test_the_whole_life_by_services(call, managed):
    steps = [
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_CLEANUP, "unconfigured"),
        (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, "finalized"),
    ]
    assert state(call) == "unconfigured"
    for transition, expected in steps:
        wanted = Transition(id=transition)
        assert call(ChangeState, "change_state", transition=wanted).success
        assert state(call) == expected
    assert managed.calls == [
        ("configure", "unconfigured"),
        ("activate", "inactive"),
        ("deactivate", "active"),
        ("cleanup", "inactive"),
        ("shutdown", "unconfigured"),
    ]


def test_transitions_can_be_asked_for_by_label(call):
    assert call(ChangeState, "change_state", transition=Transition(label="configure")).success
    assert state(call) == "inactive"


def test_failure_goes_back_and_error_goes_through_error_processing(managed, call):
    managed.answers["configure"] = TransitionCallbackReturn.FAILURE
    assert managed.trigger_configure() is TransitionCallbackReturn.FAILURE
    assert state(call) == "unconfigured"
    managed.answers["configure"] = TransitionCallbackReturn.ERROR
    assert managed.trigger_configure() is TransitionCallbackReturn.ERROR
    assert managed.calls[-1] == ("error", "unconfigured")
    assert state(call) == "unconfigured"
    managed.answers["error"] = TransitionCallbackReturn.FAILURE
    managed.trigger_configure()
    assert state(call) == "finalized"


def test_lifecycle_publishers_are_silent_while_inactive(ros, managed):
    got = []
    publisher = managed.create_lifecycle_publisher(UInt32, "count", 10)
    managed.create_subscription(UInt32, "count", lambda m: got.append(m.data), 10)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(UInt32(data=1))
    managed.trigger_configure()
    managed.trigger_activate()
    assert publisher.is_activated
    publisher.publish(UInt32(data=2))
    managed.trigger_deactivate()
    publisher.publish(UInt32(data=3))
    assert ros.until(lambda: got)
    ros.until(lambda: False, timeout_s=0.05)
    assert got == [2]
    assert managed.destroy_lifecycle_publisher(publisher)


def test_every_step_is_published(ros, managed):
    events = []
    listener = ros.node("listener")
    listener.create_subscription(
        TransitionEvent, f"/{managed.get_name()}/transition_event", events.append, 10
    )
    assert ros.until(lambda: next(listener.subscriptions).get_publisher_count() == 1)
    managed.trigger_configure()
    assert ros.until(lambda: len(events) == 2)
    assert [e.goal_state.label for e in events] == ["configuring", "inactive"]
    assert [e.start_state.label for e in events] == ["unconfigured", "configuring"]


def test_states_and_transitions_can_be_listed(call):
    states = call(GetAvailableStates, "get_available_states").available_states
    assert len(states) == 11
    assert State(id=State.PRIMARY_STATE_ACTIVE, label="active") in states
    possible = call(GetAvailableTransitions, "get_available_transitions").available_transitions
    assert [t.transition.label for t in possible] == ["configure", "shutdown"]
    graph = call(GetAvailableTransitions, "get_transition_graph").available_transitions
    assert len(graph) == 25


def test_the_services_can_be_left_out(ros):
    node = ros.add(Managed(context=ros.context, enable_communication_interface=False))
    assert all("change_state" not in service.service_name for service in node.services)
    assert node.trigger_configure() is OK


class Entity(SimpleManagedEntity):
    """Notes what it is told."""

    def __init__(self):
        super().__init__()
        self.told, self.worked = [], []

    def on_configure(self, state):
        self.told.append(state.label)
        return OK

    @SimpleManagedEntity.when_enabled
    def work(self):
        self.worked.append(1)


def test_managed_entities_follow_their_node(ros):
    node = ros.add(LifecycleNode(f"plain{next(NUMBERS)}", context=ros.context))
    entity = Entity()
    node.add_managed_entity(entity)
    with pytest.raises(TypeError):
        node.add_managed_entity(object())
    entity.work()
    node.trigger_configure()
    node.trigger_activate()
    assert entity.is_activated
    entity.work()
    node.trigger_deactivate()
    entity.work()
    assert (entity.told, entity.worked) == (["unconfigured"], [1])


def test_shutdown_is_possible_from_every_state_but_the_last(managed):
    managed.trigger_configure()
    managed.trigger_activate()
    assert managed.trigger_shutdown() is OK
    assert managed.calls[-1] == ("shutdown", "active")
    with pytest.raises(RCLError):
        managed.trigger_shutdown()
