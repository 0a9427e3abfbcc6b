"""Rollouts against the clock: latency is real, one executor serves all, the limits are kept."""

from __future__ import annotations

import numpy as np
import pytest

from fastvla_core.robot.contract_file import load_contract
from fastvla_core.runtime import chunking
from fastvla_core.sim import Outcome, TabletopSim, Task, expert_action, sample_task
from fastvla_core.sim.gl import load_mujoco
from fastvla_core.sim.sim import ACTION_NAMES
from fastvla_core.sim.timed_rollout import Timing, timed_rollouts
from fastvla_core.types import ActionChunk, ChunkPrefix, Observation

CONTRACT = load_contract("tabletop")
MERGES = ("auto", "switch", "ensemble", "rtc", "rtc_trained")


class Recorder:
    """Targets that jump about; remembers what it was asked."""

    def __init__(self, *, reach: float = 0.4) -> None:
        self.reach = reach
        self.asked: list[tuple[Observation, ChunkPrefix | None]] = []

    def __call__(self, observations, prefixes) -> list[ActionChunk]:
        self.asked += zip(observations, prefixes, strict=True)
        return [self._chunk(observation) for observation in observations]

    def _chunk(self, observation: Observation) -> ActionChunk:
        random = np.random.default_rng(observation.stamp_ns)
        jumps = random.uniform(-self.reach, self.reach, (8, 7))
        jumps[:, 6] /= 20
        return ActionChunk(
            stamp_ns=observation.stamp_ns,
            chunk_id=0,
            names=ACTION_NAMES,
            dt_s=0.1,
            positions=observation.state + jumps,
        )


def run(policy, *, merge="switch", latency_s=0.0, kinds=("place",)):
    jobs = [(sample_task(kind, seed), seed) for seed, kind in enumerate(kinds)]
    timing = Timing(merge=merge, latency_s=latency_s)
    return timed_rollouts(policy, jobs, contract=CONTRACT, timing=timing, n_parallel=2)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvla_core.sim import timed_rollout

    ticks = dict.fromkeys(timed_rollout.HORIZON_TICKS, 20)
    monkeypatch.setattr(timed_rollout, "HORIZON_TICKS", ticks)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("latency_s", [0.0, 0.2])
def test_wild_targets_keep_velocity_and_acceleration(merge, latency_s: float):
    (result,) = run(Recorder(), merge=merge, latency_s=latency_s)
    assert 0.5 < result.peak_velocity <= 1
    assert 0.5 < result.peak_acceleration <= 1


@pytest.mark.parametrize(("latency_s", "expected_ms"), [(0.0, 200), (0.1, 200), (0.35, 350)])
def test_observations_follow_at_the_executed_steps_or_as_inference_allows(latency_s, expected_ms):
    policy = Recorder(reach=0.05)
    run(policy, latency_s=latency_s)
    stamps_ms = np.array([o.stamp_ns for o, _ in policy.asked]) / 1e6
    assert np.abs(np.diff(stamps_ms)[1:] - expected_ms).max() <= 38


def test_a_chunk_takes_over_when_its_latency_has_passed(monkeypatch: pytest.MonkeyPatch):
    ages_ms: list[float] = []
    submit = chunking.ChunkExecutor.submit

    def spy(self, chunk, *, now_ns):
        ages_ms.append((now_ns - chunk.stamp_ns) / 1e6)
        submit(self, chunk, now_ns=now_ns)

    monkeypatch.setattr(chunking.ChunkExecutor, "submit", spy)
    run(Recorder(reach=0.05), latency_s=0.2)
    assert len(ages_ms) >= 4
    assert min(ages_ms) >= 200
    assert max(ages_ms) <= 240


def test_real_time_chunking_tells_the_policy_what_is_executed_meanwhile():
    policy = Recorder(reach=0.05)
    run(policy, merge="rtc", latency_s=0.2)
    first, *others = (prefix for _, prefix in policy.asked)
    assert first is None
    assert all(prefix is not None and prefix.frozen == 2 for prefix in others)


def test_many_give_the_same_results_as_one_by_one():
    kinds = ("pick", "push", "reach")
    together = run(Recorder(reach=0.1), merge="ensemble", latency_s=0.1, kinds=kinds)
    for seed, kind in enumerate(kinds):
        jobs = [(sample_task(kind, seed), seed)]
        timing = Timing(merge="ensemble", latency_s=0.1)
        alone = timed_rollouts(Recorder(reach=0.1), jobs, contract=CONTRACT, timing=timing)
        assert alone == [together[seed]]


@pytest.mark.parametrize("latency_s", [0.0, 0.2])
def test_an_expert_in_the_policy_s_place_succeeds(monkeypatch, latency_s: float):
    """With a copy of the simulator it plays the expert ahead, as a perfect policy would."""
    from fastvla_core.sim import timed_rollout

    sims: list[TabletopSim] = []

    class Remembered(TabletopSim):
        def __init__(self) -> None:
            super().__init__()
            sims.append(self)

    monkeypatch.setattr(timed_rollout, "TabletopSim", Remembered)
    task, ahead = Task(kind="reach", target="blue"), TabletopSim()

    def policy(observations, _prefixes):
        load_mujoco().mj_copyData(ahead._data, ahead._model, sims[0]._data)
        rows = np.zeros((8, 7))
        for row in rows:
            row[:] = expert_action(ahead, task)
            ahead.step(row)
        stamp_ns = observations[0].stamp_ns
        return [
            ActionChunk(stamp_ns=stamp_ns, chunk_id=0, names=ACTION_NAMES, dt_s=0.1, positions=rows)
        ]

    timing = Timing(merge="switch", latency_s=latency_s)
    (result,) = timed_rollouts(policy, [(task, 11)], contract=CONTRACT, timing=timing)
    ahead.close()
    assert result.episode.outcome is Outcome.SUCCESS
    assert result.episode.time_s < 2.0
    assert result.peak_acceleration <= 1
