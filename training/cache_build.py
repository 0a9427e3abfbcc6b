"""Convert bags to a cache: in parallel, in a fixed order, resumable after any interruption."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from fastvla_core import __version__
from fastvla_core.errors import DatasetError, FastVLAError
from fastvla_core.robot.contract import RobotContract
from training.bags.episodes import EpisodeSteps, episode_steps
from training.bags.reader import is_bag, open_bag, recordings_in
from training.cache_files import FORMAT, CacheEntry, CacheManifest
from training.cache_store import CacheStore, source_entry
from training.workers import worker_pool

SUCCESS_ONLY = ("success",)

Progress = Callable[[int, int, int], None]
"""Called with bags done, bags in all, frames so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    source: Path
    contract: RobotContract
    rate_hz: float
    outcomes: tuple[str, ...] | None
    instruction: str | None


def find_bags(paths: Iterable[str | Path]) -> list[Path]:
    """Every recording at or below those paths, sorted.

    Raises:
        DatasetError: there is none, or a path does not exist.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise DatasetError(f"{path}: does not exist", mend="check the path")
        if path.is_file() and is_bag(path):
            found.add(path.resolve())
        for name, subfolders, _ in os.walk(path, followlinks=True):
            folder = Path(name)
            here = recordings_in(folder)
            found.update(recording.resolve() for recording in here)
            if here == [folder]:
                subfolders.clear()
    if not found:
        raise DatasetError(
            f"no recording in {', '.join(map(str, paths))}",
            mend="`fastvla record` writes them; give the folder that holds them",
        )
    return sorted(found)


def build_cache(
    bag_dirs: Sequence[str | Path],
    cache_dir: str | Path,
    *,
    contract: RobotContract,
    rate_hz: float = 10.0,
    workers: int | None = None,
    outcomes: Collection[str] | None = SUCCESS_ONLY,
    instruction: str | None = None,
    progress: Progress | None = None,
) -> CacheManifest:
    """Convert bags, or folders of bags; bags that are in the cache already are not read again.

    Args:
        workers: Processes; by default one per core.
        outcomes: Episodes that ended otherwise are skipped; None takes all.
        instruction: Replaces the recorded one.

    Raises:
        DatasetError: the rate or the instruction cannot be, or no bag gives a usable step.
    """
    if not 0 < rate_hz <= 1000:
        raise DatasetError(f"{rate_hz} steps per second", mend="give more than 0, at most 1000")
    if instruction is not None and not instruction.strip():
        raise DatasetError("the instruction is empty", mend="say what the task was")
    sources = find_bags(bag_dirs)
    workers = workers or len(os.sched_getaffinity(0))
    chosen = tuple(sorted(outcomes)) if outcomes is not None else None
    settings = {
        "format": FORMAT,
        "version": __version__,
        "contract": contract.to_dict(),
        "rate_hz": rate_hz,
        "outcomes": chosen,
        "instruction": instruction,
    }
    store = CacheStore(Path(cache_dir), contract=contract, settings=settings)
    known = store.resume(sources)
    jobs = [
        _Job(
            source=source, contract=contract, rate_hz=rate_hz,
            outcomes=chosen, instruction=instruction,
        )
        for source in sources
        if str(source) not in known
    ]  # fmt: skip
    with store:
        for number, (entry, steps) in enumerate(_convert(jobs, workers=workers), len(known) + 1):
            store.append(entry, steps)
            if progress:
                progress(number, len(sources), store.frames)
        return store.finish(rate_hz=rate_hz)


def _convert(jobs: list[_Job], *, workers: int) -> Iterator[tuple[CacheEntry, EpisodeSteps | None]]:
    """Results in the order of the jobs, with few enough in flight to bound the memory."""
    if workers == 1 or len(jobs) < 2 * workers:
        yield from map(_convert_one, jobs)
        return
    with worker_pool(workers) as pool:
        waiting: deque[Future[tuple[CacheEntry, EpisodeSteps | None]]] = deque()
        for job in jobs:
            waiting.append(pool.submit(_convert_one, job))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _convert_one(job: _Job) -> tuple[CacheEntry, EpisodeSteps | None]:
    entry = source_entry(job.source, with_hash=True)
    try:
        with open_bag(job.source) as bag:
            if job.outcomes is not None and bag.outcome not in job.outcomes:
                reason = f"its outcome is '{bag.outcome or 'not recorded'}'; --outcome any takes it"
                return dataclasses.replace(entry, outcome=bag.outcome, skipped=reason), None
            steps = episode_steps(
                bag, contract=job.contract, rate_hz=job.rate_hz, instruction=job.instruction
            )
    except FastVLAError as error:
        return dataclasses.replace(entry, skipped=str(error), failed=True), None
    except Exception as error:  # one recording must not end the conversion of the others
        reason = f"{job.source}: {type(error).__name__}: {error}"
        return dataclasses.replace(entry, skipped=reason, failed=True), None
    entry = dataclasses.replace(
        entry,
        frames=len(steps),
        instruction=steps.instruction,
        outcome=steps.outcome,
        dropped=dict(steps.dropped),
        bad_messages=dict(steps.bad_messages),
        lost=tuple(problem.message for problem in bag.problems if problem.loses_data),
    )
    return entry, steps
