"""A race: every contender is checked against the float32 reference, and only then timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from fastvla_core.errors import FastVLAError
from training.bench.contest.check import Agreement, agreement
from training.bench.contest.contenders import REFERENCE, Contender
from training.bench.contest.job import Job
from training.bench.contest.session import ContenderError, Session
from training.bench.contest.workloads import Workload

_ROUNDS, _PATIENCE = 10, 3
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a contender.

    Attributes:
        why: Why there are no times; empty when there are.
        agreement: With the reference; None where it gave no actions.
        times_ms: One inference each.
        peak_mb: Largest memory while inferring: of the GPU's allocator, or resident.
    """

    contender: Contender
    why: str = ""
    agreement: Agreement | None = None
    times_ms: tuple[float, ...] = ()
    peak_mb: float = 0.0

    @property
    def p50_ms(self) -> float:
        """Median."""
        return float(np.percentile(self.times_ms, 50))

    @property
    def p99_ms(self) -> float:
        """Of a hundred times, the second longest."""
        return float(np.percentile(self.times_ms, 99))


@dataclass(slots=True)
class _Runner:
    """A contender that passed the check."""

    contender: Contender
    session: Session
    agreement: Agreement
    times_ms: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    why: str = ""

    def replay(self, *, count: int, seconds: float) -> None:
        """Time up to `count` inferences more."""
        try:
            reply = self.session.order(
                "replay",
                # A single call may take longer than its share.
                deadline_s=3 * seconds + 60,
                count=count,
                seconds=seconds,
                first=len(self.times_ms),
            )
        except ContenderError as error:
            self.why = error.message
            return
        self.times_ms += reply["times_ms"]
        self.peak_mb = max(self.peak_mb, reply["peak_mb"])

    @property
    def result(self) -> Result:
        """Its row."""
        return Result(
            contender=self.contender,
            why=self.why,
            agreement=self.agreement,
            times_ms=() if self.why else tuple(self.times_ms),
            peak_mb=self.peak_mb,
        )


class Race:
    """One policy, everybody who runs it.

    Args:
        device, threads: Where.
        replays: Inferences that are timed per contender, fewer where time is short.
        seconds: For everything. A contender gets an equal share of what is left, so one that is
            done early leaves time to those behind it.
        in_turn: Keep all contenders loaded and let them take turns, so that what else the machine
            does hits all alike; otherwise one after the other, each alone in memory.
    """

    def __init__(
        self,
        workload: Workload,
        *,
        device: str,
        threads: int,
        replays: int,
        seconds: float,
        in_turn: bool,
        say: Say,
    ) -> None:
        self._workload, self._device, self._threads = workload, device, threads
        self._replays, self._in_turn, self._say = replays, in_turn, say
        self._end = time.monotonic() + seconds
        # The other half of the time is for those that take turns after all are checked.
        self._checked_by = time.monotonic() + seconds * (0.6 if in_turn else 1.0)
        self._noise = load_file(workload.inputs)["noise"]
        self._reference: Tensor | None = None
        self._started = time.monotonic()

    def run(self, everybody: Sequence[Contender]) -> list[Result]:
        """Check and time all of them; results in their order.

        Raises:
            FastVLAError: there is no reference to check against.
        """
        results: dict[str, Result] = {}
        with ExitStack() as stack, TemporaryDirectory() as folder:
            runners = []
            able = [c for c in everybody if not c.missing]
            for index, contender in enumerate(able):
                share = (self._checked_by - time.monotonic()) / (len(able) - index)
                if contender.name == REFERENCE:
                    # Without it there is no race.
                    share = max(share, 0.4 * (self._checked_by - time.monotonic()))
                found = self._checked(contender, Path(folder), share)
                if isinstance(found, Result):
                    results[contender.name] = found
                    self._say(f"{contender.name}: {found.why}")
                    continue
                stack.callback(found.session.close)
                runners.append(found)
                if not self._in_turn:
                    left = max(1.0, share - (time.monotonic() - self._started))
                    found.replay(count=self._replays, seconds=left)
                    found.session.close()
            if self._in_turn:
                self._take_turns(runners)
            results |= {runner.contender.name: runner.result for runner in runners}
        return [results.get(c.name) or Result(contender=c, why=c.missing) for c in everybody]

    def _checked(self, contender: Contender, folder: Path, share: float) -> Result | _Runner:
        self._started = time.monotonic()
        job = Job(
            checkpoint=str(self._workload.checkpoint),
            inputs=str(self._workload.inputs),
            device=self._device,
            threads=self._threads,
            options=contender.options,
        )
        session = None
        try:
            session = Session(
                contender.module,
                job,
                python=contender.python,
                environment=contender.environment,
            )
            # Most are ready in less than their share, so a slow one may have some of theirs; those
            # that compile have what all others left, and nobody behind them to make it good.
            patience = 1 if contender.slow_start else _PATIENCE
            end = min(self._started + patience * share, self._checked_by)
            session.ready(deadline_s=end - time.monotonic())
            path = folder / "actions.safetensors"
            session.order("answer", to=str(path), deadline_s=end - time.monotonic())
            actions = load_file(path)["actions"]
        except ContenderError as error:
            if session is not None:
                session.close()
            if contender.name == REFERENCE:
                raise FastVLAError(
                    f"the float32 reference cannot be had: {error.message}",
                    mend="give more --budget or fewer --inputs",
                ) from error
            return Result(contender=contender, why=error.message)
        if contender.name == REFERENCE:
            self._reference = actions
        assert self._reference is not None, "the reference is the first contender"
        found = agreement(actions, self._reference, self._noise, self._workload.motion)
        if why := found.refusal(contender.weights):
            session.close()
            return Result(contender=contender, why=why, agreement=found)
        took = time.monotonic() - self._started
        self._say(
            f"{contender.name}: checked in {took:.0f} s, worst cosine {found.worst_cosine:.5f}"
        )
        return _Runner(contender, session, found)

    def _take_turns(self, runners: Sequence[_Runner]) -> None:
        for runner, rounds_left in _turns(runners):
            missing = self._replays - len(runner.times_ms)
            if runner.why or missing <= 0:
                continue
            turns_left = rounds_left * len(runners)
            left = max(0.0, self._end - time.monotonic()) / turns_left
            runner.replay(count=-(-missing // rounds_left), seconds=left)


def _turns(runners: Sequence[_Runner]) -> Iterator[tuple[_Runner, int]]:
    for rounds_left in range(_ROUNDS, 0, -1):
        for runner in runners:
            yield runner, rounds_left
