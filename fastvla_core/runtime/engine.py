"""One inference at a time, beside the control loop: the loop never waits for the policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

from fastvla_core.errors import PolicyError
from fastvla_core.types import ActionChunk, ChunkPrefix, Conditioning, Observation


class InferencePolicy(Protocol):
    """What the runtime needs of a policy."""

    def infer(self, observation: Observation, /) -> ActionChunk:
        """The targets for the next steps."""
        ...

    def reset(self, seed: int = 0) -> None:
        """Forget the previous goal; `seed` fixes the sampling."""
        ...


class ContinuingPolicy(InferencePolicy, Protocol):
    """A policy that can be told what is planned already."""

    @property
    def conditionings(self) -> Collection[Conditioning]:
        """In which ways."""
        ...

    def infer(
        self, observation: Observation, /, *, prefix: ChunkPrefix | None = None
    ) -> ActionChunk:
        """The targets for the next steps, in agreement with `prefix`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One finished inference: a chunk or an error, and when it ran (monotonic clock)."""

    observation: Observation
    chunk: ActionChunk | None
    error: Exception | None
    started_ns: int
    finished_ns: int

    @property
    def latency_s(self) -> float:
        """How long the policy took [s]."""
        return (self.finished_ns - self.started_ns) * 1e-9


_Request: TypeAlias = tuple[Observation, ChunkPrefix | None]


class InferenceWorker:
    """A thread that runs the policy on one observation at a time.

    The result is polled. A result that is discarded while it is still being computed never
    comes out, so that a cancelled goal leaves nothing behind for the next one.
    """

    def __init__(self, policy: InferencePolicy, *, name: str = "inference") -> None:
        self._policy = policy
        self._condition = threading.Condition()
        self._waiting: _Request | None = None
        self._running: _Request | None = None
        self._done: Inference | None = None
        self._discard = False
        self._seed: int | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether an observation waits or is being computed, discarded ones included."""
        with self._condition:
            return self._waiting is not None or self._running is not None

    @property
    def conditionings(self) -> Collection[Conditioning]:
        """The ways in which the policy can be told what is planned; empty when in none."""
        return getattr(self._policy, "conditionings", ())

    @property
    def history_s(self) -> Sequence[float]:
        """How long before an observation those are that the policy reads with it, oldest first."""
        return getattr(self._policy, "history_s", ())

    def submit(self, observation: Observation, *, prefix: ChunkPrefix | None = None) -> bool:
        """Start one inference; False, and nothing happens, while another is under way.

        Args:
            prefix: What the chunk has to agree with, for a policy with such `conditionings`.
        """
        with self._condition:
            if self._closing or self._waiting is not None or self._running is not None:
                return False
            self._waiting, self._done = (observation, prefix), None
            self._condition.notify()
            return True

    def poll(self) -> Inference | None:
        """The result of the last `submit`, once; None until it is there."""
        with self._condition:
            done, self._done = self._done, None
            return done

    def discard(self) -> None:
        """Throw away what waits, runs or is ready; the running one goes on unseen to its end."""
        with self._condition:
            self._waiting = self._done = None
            self._discard = self._running is not None

    def restart(self, seed: int) -> None:
        """Discard, and reset the policy with `seed` before its next inference."""
        with self._condition:
            self.discard()
            self._seed = seed

    def close(self, *, timeout_s: float = 5.0) -> bool:
        """End the thread; False when the policy did not return within `timeout_s`."""
        with self._condition:
            self._closing = True
            self.discard()
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._waiting is None and not self._closing:
                    self._condition.wait()
                if self._waiting is None:
                    return
                self._running, self._waiting = self._waiting, None
                seed, self._seed = self._seed, None
                request = self._running
            result = self._infer(request, seed)
            with self._condition:
                self._running = None
                if not self._discard:
                    self._done = result
                self._discard = False

    def _infer(self, request: _Request, seed: int | None) -> Inference:
        observation, prefix = request
        started_ns = time.monotonic_ns()
        chunk = error = None
        try:
            if seed is not None:
                self._policy.reset(seed)
            if prefix is None:
                chunk = self._policy.infer(observation)
            else:
                chunk = cast("ContinuingPolicy", self._policy).infer(observation, prefix=prefix)
            if chunk.stamp_ns != observation.stamp_ns:
                raise PolicyError(
                    f"action chunk {chunk.chunk_id} is stamped {chunk.stamp_ns}, its observation "
                    f"{observation.stamp_ns}"
                )
        # Whatever a policy raises ends the goal, never the control loop; the session reports it.
        except Exception as caught:
            chunk, error = None, caught
        return Inference(
            observation=observation,
            chunk=chunk,
            error=error,
            started_ns=started_ns,
            finished_ns=time.monotonic_ns(),
        )
