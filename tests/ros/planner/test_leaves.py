"""The small leaves: no tick of theirs waits."""

from __future__ import annotations

import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from py_trees.common import Status

from fastvla_ros.planner.leaves import Act, CallService, Check, Wait, WaitUntil

SUCCESS, FAILURE, RUNNING = Status.SUCCESS, Status.FAILURE, Status.RUNNING


def status(leaf) -> Status:
    leaf.tick_once()
    return leaf.status


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told."""
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.s)
    return now


class Service:
    """A service client whose answers come when the test wants."""

    def __init__(self, *, ready: bool = True) -> None:
        self.ready, self.calls = ready, []

    def service_is_ready(self) -> bool:
        return self.ready

    def call_async(self, request):
        self.calls.append((request, Future()))
        return self.calls[-1][1]


def calling(service: Service) -> CallService:
    node = SimpleNamespace(create_client=lambda *_: service)
    return CallService(
        "call", node, object, "x", request=lambda: len(service.calls), accepted=bool, timeout_s=2.0
    )


def test_a_check_looks_at_every_tick():
    answers = [True, False]
    leaf = Check("c", lambda: answers.pop(0))
    assert [status(leaf), status(leaf)] == [SUCCESS, FAILURE]


def test_an_act_acts_once_per_tick():
    done = []
    assert status(Act("a", lambda: done.append(1))) is SUCCESS
    assert status(Act("a", lambda: done.append(1), then=FAILURE)) is FAILURE
    assert done == [1, 1]


def test_waiting_for_a_condition_ends_with_it_or_with_its_time(clock):
    holds = []
    leaf = WaitUntil("w", lambda: bool(holds), timeout_s=3.0)
    assert status(leaf) is RUNNING
    clock.s += 2.9
    assert status(leaf) is RUNNING
    clock.s += 0.2
    assert status(leaf) is FAILURE
    assert status(leaf) is RUNNING
    holds.append(True)
    assert status(leaf) is SUCCESS


def test_a_wait_takes_as_long_as_is_said_when_it_begins(clock):
    durations = [1.0, 4.0]
    leaf = Wait("w", lambda: durations.pop(0))
    for duration in (1.0, 4.0):
        assert status(leaf) is RUNNING
        clock.s += duration - 0.1
        assert status(leaf) is RUNNING
        clock.s += 0.1
        assert status(leaf) is SUCCESS


@pytest.mark.parametrize(("answer", "expected"), [(True, SUCCESS), (False, FAILURE)])
def test_a_call_runs_until_its_answer(clock, answer, expected):
    service = Service(ready=False)
    leaf = calling(service)
    assert status(leaf) is RUNNING
    service.ready = True
    assert [status(leaf), status(leaf)] == [RUNNING, RUNNING]
    ((request, future),) = service.calls
    assert request == 0
    future.set_result(answer)
    assert status(leaf) is expected
    assert status(leaf) is RUNNING
    assert len(service.calls) == 2


@pytest.mark.parametrize("ready", [True, False])
def test_a_call_without_an_answer_fails(clock, ready):
    leaf = calling(Service(ready=ready))
    assert status(leaf) is RUNNING
    clock.s += 2.1
    assert status(leaf) is FAILURE
