"""The desk: one goal at a time, told apart by id, and a result whatever happens."""

from __future__ import annotations

import threading
import uuid
from types import SimpleNamespace

import pytest

from fastvla_ros.nodes.goal_desk import GoalDesk, GoalNotStartedError
from fastvla_ros.nodes.goal_types import GoalCode, GoalEnd, Instant
from tests.ros.nodes.robot_rig import wait_until
from tests.ros.nodes.session_rig import Rig


class Handle:
    """As an action server's goal handle: an id, the request, and a thread to run in."""

    def __init__(self, desk: GoalDesk, task: str) -> None:
        self.goal_id = SimpleNamespace(uuid=uuid.uuid4().bytes)
        self.request = SimpleNamespace(task=task)
        self.end: GoalEnd | None = None
        self.finished: GoalEnd | None = None
        self.collisions = 0
        self._desk = desk
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def is_active(self) -> bool:
        return self.finished is None

    def execute(self) -> None:
        if self.collisions:
            self.collisions -= 1
            raise RuntimeError("goal_handle attempted invalid transition")
        self._thread.start()

    def _run(self) -> None:
        self.end = self._desk.execute(self)

    def join(self) -> GoalEnd:
        self._thread.join(5)
        assert self.end is not None
        return self.end


class Office:
    """The desk's listener; the sessions are real, their sensors silent."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.desk = GoalDesk(self)
        self.started: list[str] = []
        self.events: list[str] = []
        self.stopped: GoalNotStartedError | None = None
        self.errors: list[Exception] = []
        self.broken = False

    def now(self) -> Instant:
        return self.rig.now

    def start(self, request):
        if request.task == "impossible":
            raise RuntimeError("no such task")
        if self.stopped is not None:
            raise self.stopped
        self.events.append(f"{request.task} starts")
        self.started.append(request.task)
        self.rig.start(request.task)
        return self.rig.session

    def publish(self, session, tick, handle) -> None:
        if self.broken:
            raise ValueError("a wrong message")

    def finish(self, handle, end: GoalEnd) -> None:
        handle.finished = end
        self.events.append(f"{handle.request.task} ended {end.code.name}")

    def on_error(self, error: Exception) -> None:
        self.errors.append(error)

    def take(self, task: str, *, on_busy="reject") -> Handle:
        assert self.desk.reserve(on_busy=on_busy)
        handle = Handle(self.desk, task)
        self.desk.accepted(handle)
        return handle

    def running(self, task: str) -> None:
        wait_until(lambda: self.desk.session is not None and self.desk.session.task == task)


@pytest.fixture
def office():
    office = Office()
    yield office
    assert office.desk.end_all(GoalCode.DEACTIVATED, "", timeout_s=5)
    office.rig.close()


def test_a_busy_desk_takes_no_second_goal(office: Office):
    office.take("first")
    assert office.desk.busy
    assert not office.desk.reserve(on_busy="reject")


def test_a_reservation_counts_as_busy(office: Office):
    assert office.desk.reserve(on_busy="reject")
    assert not office.desk.reserve(on_busy="reject")
    office.desk.accepted(handle := Handle(office.desk, "first"))
    office.desk.end_all(GoalCode.CANCELED, "", timeout_s=5)
    handle.join()
    assert not office.desk.busy


def test_preemption_runs_only_the_newest(office: Office):
    first = office.take("first", on_busy="preempt")
    office.running("first")
    second = office.take("second", on_busy="preempt")
    third = office.take("third", on_busy="preempt")
    office.desk.tick()
    assert first.join().code is GoalCode.PREEMPTED
    assert second.join().code is GoalCode.PREEMPTED
    office.running("third")
    assert office.started == ["first", "third"]
    assert third.end is None


def test_the_old_goal_has_its_final_state_before_the_new_one_starts(office: Office):
    office.take("first", on_busy="preempt")
    office.running("first")
    office.take("second", on_busy="preempt")
    office.desk.tick()
    office.running("second")
    assert office.events == ["first starts", "first ended PREEMPTED", "second starts"]


def test_a_late_cancel_of_an_old_goal_never_stops_the_next(office: Office):
    first = office.take("first")
    office.running("first")
    assert office.desk.cancel(first)
    office.desk.tick()
    assert first.join().code is GoalCode.CANCELED
    office.take("second")
    office.running("second")
    assert not office.desk.cancel(first)
    office.desk.tick()
    assert office.desk.session is not None


def test_a_waiting_goal_can_be_canceled(office: Office):
    office.take("first", on_busy="preempt")
    office.running("first")
    second = office.take("second", on_busy="preempt")
    assert office.desk.cancel(second)
    assert second.join().code is GoalCode.CANCELED
    assert office.started == ["first"]


def test_a_goal_that_cannot_start_gets_a_result(office: Office):
    handle = office.take("impossible")
    end = handle.join()
    assert end.code is GoalCode.UNKNOWN
    assert "no such task" in end.message
    assert len(office.errors) == 1
    office.take("second")
    office.running("second")


def test_a_defect_in_a_tick_ends_the_goal(office: Office):
    handle = office.take("first")
    office.running("first")
    office.broken = True
    office.desk.tick()
    end = handle.join()
    assert end.code is GoalCode.UNKNOWN
    assert "a wrong message" in end.message
    assert isinstance(office.errors[0], ValueError)


def test_end_all_ends_running_and_waiting_goals_without_a_timer(office: Office):
    first = office.take("first", on_busy="preempt")
    office.running("first")
    assert office.desk.end_all(GoalCode.DEACTIVATED, "down", timeout_s=5)
    assert first.join().code is GoalCode.DEACTIVATED
    assert first.join().message == "down"


def test_a_cancel_that_overtakes_the_acceptance_counts(office: Office):
    assert office.desk.reserve(on_busy="reject")
    handle = Handle(office.desk, "first")
    assert office.desk.cancel(handle)
    office.desk.accepted(handle)
    assert handle.join().code is GoalCode.CANCELED
    assert office.started == []
    assert not office.desk.cancel(handle)
    office.take("second")
    office.running("second")


def test_a_canceled_goal_that_was_preempted_while_it_waited_is_canceled(office: Office):
    office.take("first", on_busy="preempt")
    office.running("first")
    second = office.take("second", on_busy="preempt")
    assert office.desk.cancel(second)
    office.take("third", on_busy="preempt")
    assert second.join().code is GoalCode.CANCELED


@pytest.mark.parametrize("code", [GoalCode.SAFETY_STOP, GoalCode.DEACTIVATED])
def test_a_goal_that_must_not_start_any_more_says_why(office: Office, code: GoalCode):
    office.stopped = GoalNotStartedError(code, "because")
    end = office.take("first").join()
    assert (end.code, end.message, end.commands_sent) == (code, "because", 0)
    assert office.errors == []


def test_a_cancel_that_collides_with_the_start_does_no_harm(office: Office):
    assert office.desk.reserve(on_busy="reject")
    handle = Handle(office.desk, "first")
    handle.collisions = 1
    office.desk.accepted(handle)
    office.running("first")
