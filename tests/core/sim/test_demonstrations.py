"""Demonstrations are complete, repeatable and labelled by the expert."""

from __future__ import annotations

import numpy as np
import pytest

from fastvla_core.sim import (
    TASK_KINDS,
    Demonstration,
    TabletopEnvironment,
    Task,
    record_demonstration,
)
from fastvla_core.sim.sim import ACTION_NAMES
from fastvla_core.sim.tasks import TaskKind, sample_task
from fastvla_core.types import ActionChunk, Observation

ARRAYS = ("state", "velocity", "label", "executed", "stamp_ns")


def assert_equal(one: Demonstration, other: Demonstration) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for camera, images in one.images.items():
        np.testing.assert_array_equal(images, other.images[camera])


def stand_still(observation: Observation) -> ActionChunk:
    positions = np.tile(observation.state.astype(np.float64), (8, 1))
    return ActionChunk(
        stamp_ns=observation.stamp_ns, chunk_id=0, names=ACTION_NAMES, dt_s=0.1, positions=positions
    )


def test_the_same_seed_gives_equal_arrays(tabletop: TabletopEnvironment) -> None:
    task = Task(kind="pick", target="red")
    first = record_demonstration(tabletop, task, 4)
    record_demonstration(tabletop, task, 5)
    assert_equal(first, record_demonstration(tabletop, task, 4))


def test_arrays_fit_together(tabletop: TabletopEnvironment) -> None:
    demonstration = record_demonstration(tabletop, Task(kind="reach", target="green"), 1)
    ticks = len(demonstration.stamp_ns)
    assert demonstration.success
    assert demonstration.instruction == "reach the green cube"
    assert set(demonstration.images) == {"front", "wrist"}
    for images in demonstration.images.values():
        assert images.shape == (ticks, 96, 96, 3)
        assert images.dtype == np.uint8
    for name in ("state", "velocity", "label", "executed"):
        assert getattr(demonstration, name).shape == (ticks, 7)
        assert getattr(demonstration, name).dtype == np.float32
    np.testing.assert_array_equal(np.diff(demonstration.stamp_ns), 100_000_000)


def test_without_noise_the_label_is_executed(tabletop: TabletopEnvironment) -> None:
    task = Task(kind="pick", target="red")
    clean = record_demonstration(tabletop, task, 4, noise=False)
    noisy = record_demonstration(tabletop, task, 4)
    np.testing.assert_array_equal(clean.label, clean.executed)
    assert np.abs(noisy.label - noisy.executed).max() > 0.01
    np.testing.assert_array_equal(clean.state[0], noisy.state[0])


@pytest.mark.parametrize("kind", TASK_KINDS)
def test_the_expert_recovers_from_noise(tabletop: TabletopEnvironment, kind: TaskKind) -> None:
    successes = [record_demonstration(tabletop, sample_task(kind, s), s).success for s in range(4)]
    assert sum(successes) >= 3


def test_the_policy_may_drive_first(tabletop: TabletopEnvironment) -> None:
    task = Task(kind="pick", target="red")
    alone = record_demonstration(tabletop, task, 4, noise=False)
    after = record_demonstration(tabletop, task, 4, noise=False, start_with=stand_still)
    assert after.success
    assert after.stamp_ns[0] >= 300_000_000
    assert alone.stamp_ns[0] == 0
    assert_equal(
        after, record_demonstration(tabletop, task, 4, noise=False, start_with=stand_still)
    )


def test_time_is_limited(tabletop: TabletopEnvironment) -> None:
    task = Task(kind="stack", target="red", reference="blue")
    demonstration = record_demonstration(tabletop, task, 4, horizon=6)
    assert len(demonstration.state) == 6
    assert not demonstration.success
