"""One simulator for all tests: making an OpenGL context takes longer than an episode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastvla_core.sim import TabletopEnvironment, TabletopSim


@pytest.fixture(scope="package")
def sim() -> Iterator[TabletopSim]:
    simulator = TabletopSim()
    yield simulator
    simulator.close()


@pytest.fixture(scope="package")
def tabletop(sim: TabletopSim) -> TabletopEnvironment:
    """The same simulator as an environment."""
    return TabletopEnvironment(sim)
