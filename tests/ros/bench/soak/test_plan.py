"""The plans of goals and faults."""

from collections import Counter

import pytest

from fastvla_ros.bench.soak.plan import EXPECTED, FAULTS, make_plans


@pytest.mark.parametrize("goals", [1, len(FAULTS), 30, 1000])
def test_every_fault_has_its_turn_as_often_as_the_others(goals: int):
    plans = make_plans(goals, seed=3)
    assert [plan.number for plan in plans] == list(range(goals))
    counts = Counter(plan.fault for plan in plans if plan.fault != "none")
    if goals >= len(FAULTS):
        assert set(counts) == set(FAULTS)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_seed_gives_the_same_plans_again_and_another_one_others():
    assert make_plans(200, seed=5) == make_plans(200, seed=5)
    assert make_plans(200, seed=5) != make_plans(200, seed=6)


def test_goals_without_a_fault_are_canceled_at_any_moment_or_run_out():
    plans = [plan for plan in make_plans(1000, seed=0) if plan.fault == "none"]
    moments = [plan.cancel_after_s for plan in plans]
    assert None in moments
    assert 0.0 in moments
    assert sum(moment is not None for moment in moments) > len(plans) / 2
    for plan in plans:
        if plan.cancel_after_s is None:
            assert plan.expected == EXPECTED["none"]
        elif plan.expected == {"CANCELED"}:
            assert plan.cancel_after_s < plan.timeout_s / 10
