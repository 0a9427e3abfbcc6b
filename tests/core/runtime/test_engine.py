"""The inference worker: one at a time, errors as values, discards that stay discarded."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from fastvla_core.errors import ObservationError, PolicyError
from fastvla_core.runtime.engine import Inference, InferenceWorker
from fastvla_core.types import ActionChunk, ChunkPrefix, Observation


def observation(stamp_ns: int = 1) -> Observation:
    return Observation(stamp_ns=stamp_ns, task="t", images={}, state=np.zeros(1, np.float32))


class Gate:
    """A policy that infers when it is let, as the test says."""

    def __init__(self) -> None:
        self.enter, self.leave = threading.Semaphore(0), threading.Semaphore(0)
        self.error: Exception | None = None
        self.seeds: list[int] = []
        self.seen: list[int] = []
        self.shift_ns = 0

    def infer(self, observation: Observation) -> ActionChunk:
        self.enter.release()
        assert self.leave.acquire(timeout=5)
        self.seen.append(observation.stamp_ns)
        if self.error:
            raise self.error
        return ActionChunk(
            stamp_ns=observation.stamp_ns + self.shift_ns,
            chunk_id=0,
            names=("a",),
            dt_s=0.1,
            positions=np.zeros((1, 1)),
        )

    def reset(self, seed: int = 0) -> None:
        self.seeds.append(seed)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def worker(gate: Gate):
    worker = InferenceWorker(gate)
    yield worker
    gate.leave.release(10)
    assert worker.close(timeout_s=5)


def wait_for(worker: InferenceWorker) -> Inference:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        done = worker.poll()
        if done is not None:
            return done
        time.sleep(0.001)
    raise AssertionError("no result")


def wait_idle(worker: InferenceWorker) -> None:
    end = time.monotonic() + 5
    while worker.busy:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_one_result_per_submit(worker: InferenceWorker, gate: Gate):
    gate.leave.release()
    assert worker.submit(observation(7))
    done = wait_for(worker)
    assert done.error is None
    assert done.chunk is not None
    assert done.chunk.stamp_ns == done.observation.stamp_ns == 7
    assert done.latency_s >= 0
    assert worker.poll() is None


def test_only_one_is_in_flight(worker: InferenceWorker, gate: Gate):
    assert worker.submit(observation(1))
    assert gate.enter.acquire(timeout=5)
    assert worker.busy
    assert not worker.submit(observation(2))
    gate.leave.release()
    wait_for(worker)
    assert gate.seen == [1]


@pytest.mark.parametrize("error", [PolicyError("NaN"), ObservationError("no"), ValueError("x")])
def test_errors_come_out_as_they_are_and_the_worker_goes_on(worker, gate, error: Exception):
    gate.error = error
    gate.leave.release(2)
    worker.submit(observation(1))
    done = wait_for(worker)
    assert done.error is error
    assert done.chunk is None
    gate.error = None
    worker.submit(observation(2))
    assert wait_for(worker).error is None


def test_a_discarded_result_never_comes_out(worker: InferenceWorker, gate: Gate):
    worker.submit(observation(1))
    assert gate.enter.acquire(timeout=5)
    worker.discard()
    assert worker.busy
    gate.leave.release()
    wait_idle(worker)
    assert worker.poll() is None
    gate.leave.release()
    assert worker.submit(observation(2))
    assert wait_for(worker).observation.stamp_ns == 2


def test_a_ready_result_can_be_discarded(worker: InferenceWorker, gate: Gate):
    gate.leave.release()
    worker.submit(observation(1))
    wait_idle(worker)
    worker.discard()
    assert worker.poll() is None


def test_restart_resets_the_policy_before_its_next_inference(worker, gate: Gate):
    worker.submit(observation(1))
    assert gate.enter.acquire(timeout=5)
    worker.restart(42)
    assert gate.seeds == []
    gate.leave.release(2)
    wait_idle(worker)
    worker.submit(observation(2))
    assert wait_for(worker).observation.stamp_ns == 2
    assert gate.seeds == [42]


def test_a_chunk_of_another_observation_is_an_error(worker: InferenceWorker, gate: Gate):
    gate.shift_ns = 5
    gate.leave.release()
    worker.submit(observation(1))
    assert isinstance(wait_for(worker).error, PolicyError)


class Continuing(Gate):
    """One that can be told what is planned."""

    conditionings = ("inpaint",)

    def infer(self, observation: Observation, *, prefix: ChunkPrefix | None = None) -> ActionChunk:
        self.told = prefix
        return super().infer(observation)


def test_what_is_planned_reaches_the_policy():
    policy = Continuing()
    worker = InferenceWorker(policy)
    assert worker.conditionings == ("inpaint",)
    prefix = ChunkPrefix(names=("a",), positions=np.zeros((1, 1)), frozen=1, conditioning="inpaint")
    for told in (prefix, None):
        policy.leave.release()
        worker.submit(observation(), prefix=told)
        assert wait_for(worker).error is None
        assert policy.told is told
    assert worker.close(timeout_s=5)


def test_a_policy_that_says_nothing_of_it_cannot_be_told(worker: InferenceWorker):
    assert worker.conditionings == ()


def test_close_says_when_the_policy_hangs(gate: Gate):
    worker = InferenceWorker(gate)
    worker.submit(observation())
    assert gate.enter.acquire(timeout=5)
    assert not worker.close(timeout_s=0.05)
    assert not worker.submit(observation())
    gate.leave.release()
    assert worker.close(timeout_s=5)
