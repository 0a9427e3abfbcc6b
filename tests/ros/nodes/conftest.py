"""Nodes on a ROS domain of their own, and a tiny real policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.demo.domain import reserve_domain
from fastvla_ros.runtime import ensure_ros
from tests.ros.nodes.goal_calls import SteadyPolicy
from tests.ros.nodes.robot_rig import System, save_tiny_policy
from tests.ros.nodes.session_rig import Rig


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_policy(tmp_path_factory.mktemp("policies") / "tiny")


@pytest.fixture
def domain_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    with reserve_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        yield domain


@pytest.fixture
def system(domain_id: int) -> Iterator[System]:
    with SharedProcess(domain_id=domain_id) as process:
        from rclpy.logging import LoggingSeverity, set_logger_level

        # An earlier test's `--log-level` stays with rclpy, which has one level per process.
        set_logger_level("", LoggingSeverity.INFO)
        yield System(process)
    assert process.failure is None


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> SteadyPolicy:
    """Every policy server of this process loads this policy."""
    ensure_ros()
    from fastvla_ros.nodes import policy_server_node

    policy = SteadyPolicy()
    monkeypatch.setattr(policy_server_node, "load_policy", lambda *_, **__: policy)
    return policy


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    """Makes goal sessions on clocks of their own."""
    rigs: list[Rig] = []

    def make(**options: Any) -> Rig:
        rigs.append(Rig(**options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # rclpy drops a goal's task that its executor has not begun when it is shut down, and Python
    # says so whenever it collects it, maybe in the next test.
    never_awaited = "ignore:coroutine 'ActionServer._execute_goal' was never awaited"
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings(never_awaited))
