"""Goals from messages, and results into them, at the edges of what the fields can hold."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from fastvla_ros.nodes.goal_types import GoalCode, GoalEnd, Outcome
from fastvla_ros.runtime import ensure_ros


@pytest.fixture
def parameters():
    from fastvla_ros.nodes.policy_server_parameters import ServerParameters

    values: dict[str, Any] = dict.fromkeys((field.name for field in fields(ServerParameters)), 1)
    return replace(
        ServerParameters(**values),
        checkpoint="nano",
        default_timeout_s=60.0,
        max_timeout_s=100.0,
    )


@pytest.fixture
def make_goal():
    ensure_ros()
    from fastvla_msgs.action import ExecuteTask

    return lambda **values: ExecuteTask.Goal(**{"task": "wave", **values})


def test_a_goal_without_limits_has_those_of_the_server(parameters, make_goal):
    from fastvla_ros.nodes.policy_server_messages import to_options

    options = to_options(make_goal(), parameters=parameters)
    assert (options.timeout_s, options.speed_scale, options.dry_run) == (60.0, 1.0, False)
    own = to_options(make_goal(timeout_s=5.0, speed_scale=0.5), parameters=parameters)
    assert (own.timeout_s, own.speed_scale) == (5.0, 0.5)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"task": " \n"}, "the instruction is empty"),
        ({"task": "x" * 1001}, "1001 characters, at most 1000"),
        ({"checkpoint_id": "other"}, "'other' is not loaded, 'nano' is"),
        ({"timeout_s": -0.1}, "timeout_s is -0.1"),
        ({"timeout_s": 100.1}, "at most 100 s"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"timeout_s": float("inf")}, "timeout_s is inf"),
        ({"speed_scale": 1.01}, "speed_scale is 1.01"),
        ({"speed_scale": -0.0001}, "speed_scale is -0.0001"),
        ({"speed_scale": 0.0001}, "expected 0.001 to 1"),
        ({"speed_scale": float("nan")}, "speed_scale is nan"),
    ],
)
def test_a_goal_that_makes_no_sense_is_refused(parameters, make_goal, values, reason: str):
    from fastvla_ros.nodes.policy_server_messages import refusal

    assert reason in refusal(make_goal(**values), parameters=parameters)


@pytest.mark.parametrize(
    "values",
    [{}, {"task": "x" * 1000}, {"checkpoint_id": "nano"}, {"timeout_s": 100.0},
     {"speed_scale": 0.001}, {"speed_scale": 1.0}],
)  # fmt: skip
def test_a_goal_at_its_limits_is_served(parameters, make_goal, values):
    from fastvla_ros.nodes.policy_server_messages import refusal

    assert refusal(make_goal(**values), parameters=parameters) == ""


def test_a_count_beyond_its_field_costs_no_result(make_goal):
    from fastvla_ros.nodes.policy_server_messages import to_result

    end = GoalEnd(
        code=GoalCode.UNKNOWN, message="", outcome=Outcome.UNKNOWN, elapsed_s=1.0, inferences=1,
        commands_sent=1, commands_limited=2**50, deadline_misses=0, latency_p50_s=0.1,
        latency_p99_s=0.1,
    )  # fmt: skip
    result = to_result(end)
    assert (result.error_code, result.commands_limited) == (65535, 2**32 - 1)
