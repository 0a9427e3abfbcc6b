"""An abnormal end of a goal is found, whoever tells of it, and only once."""

from __future__ import annotations

import pytest

from fastvla_ros.black_box.goals import SERVER_GONE, SERVER_SILENT, GoalWatch

EXECUTING, SUCCEEDED, CANCELED, ABORTED = 2, 4, 5, 6
S = 1_000_000_000


def watching(goal: str = "a") -> GoalWatch:
    watch = GoalWatch()
    assert watch.on_status([(goal, EXECUTING)], now_ns=0) == ([goal], [])
    return watch


@pytest.mark.parametrize("code", ["STALE_SENSOR", "TIMEOUT", "SAFETY_STOP", "CODE_77"])
def test_a_result_with_an_error_is_an_abnormal_end(code):
    watch = watching()
    (end,) = watch.on_result("a", code=code, message="why")
    assert (end.goal, end.code, end.message) == ("a", code, "why")
    assert watch.on_status([("a", ABORTED)], now_ns=1) == ([], [])
    assert watch.look(now_ns=100 * S, server_there=False) == []


@pytest.mark.parametrize("code", ["NONE", "CANCELED", "PREEMPTED", "DEACTIVATED"])
def test_an_end_that_somebody_asked_for_is_normal(code):
    watch = watching()
    assert watch.on_result("a", code=code, message="") == []
    assert watch.active == ()


@pytest.mark.parametrize("status", [SUCCEEDED, CANCELED])
def test_success_and_cancel_are_normal_without_a_result(status):
    watch = watching()
    assert watch.on_status([("a", status)], now_ns=1) == ([], [])
    assert watch.look(now_ns=100 * S, server_there=False) == []


def test_a_goal_that_ended_between_two_messages_is_asked_for_its_result():
    watch = GoalWatch()
    assert watch.on_status([("a", ABORTED)], now_ns=0) == (["a"], [])
    assert len(watch.on_result("a", code="TIMEOUT", message="")) == 1
    assert watch.on_status([("a", ABORTED)], now_ns=1) == ([], [])


def test_an_abort_whose_result_never_comes_is_abnormal():
    watch = watching()
    watch.on_status([("a", ABORTED)], now_ns=0)
    assert watch.look(now_ns=1 * S, server_there=True) == []
    (end,) = watch.look(now_ns=3 * S, server_there=True)
    assert end.code == "UNKNOWN"


def test_a_server_that_left_the_graph_is_gone():
    watch = watching()
    (end,) = watch.look(now_ns=1, server_there=False)
    assert end.code == SERVER_GONE
    assert watch.look(now_ns=2, server_there=False) == []


def test_a_server_that_does_not_know_its_goal_was_started_anew():
    watch = watching()
    _, (end,) = watch.on_status([("b", EXECUTING)], now_ns=1)
    assert (end.goal, end.code) == ("a", SERVER_GONE)
    assert watch.active == ("b",)


def test_silence_is_told_once_and_feedback_breaks_it():
    watch = watching()
    watch.on_feedback("a", now_ns=2 * S)
    assert watch.look(now_ns=4 * S, server_there=True) == []
    (end,) = watch.look(now_ns=6 * S, server_there=True)
    assert end.code == SERVER_SILENT
    assert watch.look(now_ns=9 * S, server_there=True) == []


def test_a_server_that_fell_silent_and_then_left_the_graph_is_one_end():
    watch = watching()
    assert [end.code for end in watch.look(now_ns=4 * S, server_there=True)] == [SERVER_SILENT]
    assert watch.look(now_ns=10 * S, server_there=False) == []
    assert watch.active == ()


def test_a_server_that_came_back_and_then_left_is_two():
    watch = watching()
    watch.look(now_ns=4 * S, server_there=True)
    watch.on_feedback("a", now_ns=5 * S)
    (end,) = watch.look(now_ns=6 * S, server_there=False)
    assert end.code == SERVER_GONE


def test_without_a_goal_nothing_is_amiss():
    watch = GoalWatch()
    assert watch.look(now_ns=100 * S, server_there=False) == []
    assert watch.give_up() == []


def test_goals_that_still_run_when_the_box_is_stopped_are_given_up():
    assert [end.code for end in watching().give_up()] == [SERVER_GONE]
