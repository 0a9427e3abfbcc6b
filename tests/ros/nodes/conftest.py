"""Nodes on a ROS domain of their own, and a tiny real policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.demo.domain import reserve_domain
from tests.ros.nodes.robot_rig import System, save_tiny_policy


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
        yield System(process)
    assert process.failure is None
