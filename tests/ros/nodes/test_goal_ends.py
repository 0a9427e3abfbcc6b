"""Several ends at once: the most urgent one is told, and only one hold goes out."""

from __future__ import annotations

import itertools

import pytest

from fastvla_ros.nodes.goal_types import GoalCode, Outcome, most_urgent


def test_a_cancel_at_the_finish_is_a_cancel(make_rig):
    rig = make_rig(timeout_s=0.5)
    rig.tick(14)
    rig.session.request_end(GoalCode.NONE, "done", outcome=Outcome.SUCCESS)
    rig.session.request_end(GoalCode.CANCELED, "canceled")
    rig.tick(2, dt_ns=500_000_000)
    assert rig.end is not None
    assert rig.end.code is GoalCode.CANCELED
    assert sum(tick.end is not None for tick in rig.ticks) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    list(itertools.permutations([GoalCode.TIMEOUT, GoalCode.STALE_SENSOR], 2)),
)
def test_the_order_of_asking_does_not_matter(one: GoalCode, other: GoalCode):
    assert most_urgent([one, other]) is GoalCode.STALE_SENSOR


def test_every_code_has_its_place():
    for code in GoalCode:
        assert most_urgent([code]) is code
        assert most_urgent([code, GoalCode.SAFETY_STOP]) is GoalCode.SAFETY_STOP
        assert most_urgent([code, GoalCode.TIMEOUT]) is code
