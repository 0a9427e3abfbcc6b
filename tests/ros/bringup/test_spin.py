"""The executor of a process: what ends it, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from fastvla_ros.bringup_spin import SharedProcess
from fastvla_ros.demo.domain import reserve_domain


@pytest.fixture
def process() -> Iterator[SharedProcess]:
    with reserve_domain() as domain, SharedProcess(domain_id=domain) as process:
        yield process


def invalid() -> Exception:
    from rclpy.exceptions import InvalidHandle

    return InvalidHandle("cannot use Destroyable because destruction was requested")


def _wait_for_ready_callbacks() -> None:
    """As the function of rclpy is named."""
    raise invalid()


def ran(process: SharedProcess) -> bool:
    done = Event()
    process._executor.create_task(done.set)
    return done.wait(5.0)


def test_an_entity_that_goes_while_the_executor_looks_at_it_ends_nothing(
    process: SharedProcess, monkeypatch: pytest.MonkeyPatch
):
    spin, met = process._executor.spin_once, Event()

    def spin_once(*args: Any) -> None:
        if not met.is_set():
            met.set()
            _wait_for_ready_callbacks()
        spin(*args)

    monkeypatch.setattr(process._executor, "spin_once", spin_once)
    assert ran(process)
    assert met.wait(5.0)
    assert ran(process)
    assert process.failure is None


def test_one_that_stays_in_the_way_ends_it(process: SharedProcess, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process._executor, "spin_once", _wait_for_ready_callbacks)
    # The thread is in the real one until something comes.
    process._executor.create_task(lambda: None)
    process._thread.join(5.0)
    assert type(process.failure).__name__ == "InvalidHandle"


def test_a_callback_that_uses_what_is_destroyed_ends_it(process: SharedProcess):
    def use() -> None:
        raise invalid()

    process._executor.create_task(use)
    process._thread.join(5.0)
    assert type(process.failure).__name__ == "InvalidHandle"
