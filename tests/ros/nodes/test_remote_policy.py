"""The policy server with its policy elsewhere: the goals of a robot whose link breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvla_core.errors import ContractError, RemoteError
from fastvla_core.remote.address import Address
from fastvla_core.remote.credentials import load_credentials
from fastvla_core.remote.service import PolicyServer
from fastvla_ros.commands_cli.bringup import check_options
from tests.core.remote.certificates import TOKEN, folder, make_authority
from tests.core.remote.toys import description, serve
from tests.ros.nodes.goal_calls import Goal, SteadyPolicy, change_state, executing
from tests.ros.nodes.robot_rig import CONTRACT, System, wait_until

FOR_THIS_ROBOT = description(contract=CONTRACT.to_dict())


class Elsewhere(SteadyPolicy):
    """A policy for another process; here it is this one."""

    conditionings = ()


@pytest.fixture
def policy() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def machine(policy: Elsewhere) -> Iterator[PolicyServer]:
    with serve(policy, description=FOR_THIS_ROBOT) as server:
        yield server
        policy.go_on.set()


def serve_again(policy: Elsewhere, machine: PolicyServer, **changes: Any) -> PolicyServer:
    """Another process at the address of one that is gone."""
    options = {"description": FOR_THIS_ROBOT, **changes}
    return serve(policy, listen=machine.address, **options)


def holding(goal: Goal) -> bool:
    """Whether it holds because its policy is away."""
    last = goal.progress[-1]
    return (last.state, last.blocking_stream) == ("HOLDING", "policy")


def last_s(goal: Goal) -> float:
    """How old the goal was at its last feedback."""
    return goal.progress[-1].elapsed_s


def test_a_goal_runs_with_a_policy_elsewhere(system: System, machine, policy, capfd):
    system.serve(str(machine.address))
    report = executing(system, timeout_s=4.0).wait()
    assert report.error == "TIMEOUT"
    assert report.inferences >= 2
    assert policy.observations[-1].task
    assert "(full precision, cpu of 'toy one') is loaded" in capfd.readouterr().err


def test_a_restart_in_the_middle_of_a_goal_is_held_through(system: System, machine, policy):
    system.serve(str(machine.address))
    goal = executing(system, commands=10, timeout_s=60.0)
    machine.stop()
    wait_until(lambda: holding(goal), timeout_s=30, what="the hold")
    held, seen, since_s = len(system.robot.commands), len(policy.observations), last_s(goal)
    wait_until(lambda: last_s(goal) > since_s + 3.0, timeout_s=30, what="three seconds of hold")
    back_ns = system.robot.get_clock().now().nanoseconds
    with serve_again(policy, machine):
        wait_until(lambda: len(policy.observations) > seen, timeout_s=30, what="an inference")
        wait_until(lambda: goal.progress[-1].state == "EXECUTING", timeout_s=30, what="motion")
        # Nothing that waited: the first observation after the comeback is from about then.
        assert policy.observations[seen].stamp_ns > back_ns - 2e9
        assert len(system.robot.commands) > held
        assert change_state(system, "deactivate")
        assert goal.wait().error == "DEACTIVATED"


def test_a_machine_that_stays_away_ends_the_goal(system: System, machine):
    system.serve(str(machine.address), inference_timeout_s=1.0)
    goal = executing(system, timeout_s=60.0)
    machine.stop()
    report = goal.wait()
    assert report.error == "INFERENCE_FAILED"
    assert "cannot be reached" in report.message
    assert not np.any(system.robot.commands[-1][1].points[0].velocities)


def test_another_policy_at_the_address_ends_the_goal(system: System, machine, policy):
    system.serve(str(machine.address))
    goal = executing(system, timeout_s=60.0)
    machine.stop()
    other = description("two", contract=CONTRACT.to_dict())
    with serve_again(policy, machine, description=other):
        report = goal.wait()
        assert report.error == "INFERENCE_FAILED"
        assert "'toy two' is served here now" in report.message
        # Configured again, the server takes it.
        for transition in ("deactivate", "cleanup", "configure", "activate"):
            assert change_state(system, transition)
        assert executing(system, timeout_s=1.0).wait().error == "TIMEOUT"


def test_an_answer_that_comes_after_its_goal_is_thrown_away(system: System, machine, policy):
    system.serve(str(machine.address))
    goal = executing(system, timeout_s=2.0)
    policy.go_on.clear()
    assert goal.wait().error == "TIMEOUT"
    sent = len(system.robot.commands)
    policy.go_on.set()
    second = executing(system, timeout_s=1.0)
    first_new = system.robot.commands[sent][1]
    assert second.wait().error == "TIMEOUT"
    assert first_new.joint_names == list(CONTRACT.action_names)


def test_with_nobody_there_configuring_fails_with_one_message(system: System, monkeypatch):
    from fastvla_ros.nodes import policy_server_loading

    monkeypatch.setattr(policy_server_loading, "_CONNECT_TIMEOUT_S", 0.3)
    with pytest.raises(RemoteError, match="cannot be reached") as told:
        system.serve("grpc://127.0.0.1:1")
    assert "fastvla serve" in told.value.mend


def test_a_policy_for_another_robot_is_refused(system: System, policy):
    theirs = CONTRACT.to_dict()
    theirs["joints"] = dict(reversed(theirs["joints"].items()))
    with (
        serve(policy, description=description(contract=theirs)) as server,
        pytest.raises(ContractError, match="joint order"),
    ):
        system.serve(str(server.address))


def test_the_parameter_names_the_credentials(system: System, policy, tmp_path: Path):
    authority = make_authority()
    theirs = folder(tmp_path / "s", identity=authority.issue("server"), token=TOKEN)
    ours = folder(tmp_path / "c", trusts=authority, token=TOKEN)
    listen = Address(host="127.0.0.1", port=0, secure=True)
    with serve(
        policy, listen=listen, description=FOR_THIS_ROBOT, credentials=load_credentials(theirs)
    ) as server:
        system.serve(str(server.address), remote_credentials=str(ours), remote_jpeg_quality=90)
        assert executing(system, timeout_s=1.0).wait().error == "TIMEOUT"


def test_bringup_takes_an_address_and_refuses_one_without_tls():
    from fastvla_ros.bringup_description import BringupOptions

    check_options(BringupOptions(checkpoint="grpcs://gpu-box:50051"))
    with pytest.raises(RemoteError, match="without TLS"):
        check_options(BringupOptions(checkpoint="grpc://gpu-box:50051"))
