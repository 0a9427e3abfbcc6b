"""Convert bags to a cache: in parallel, resumable after any interruption, with flat memory."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

from fastvla_core import __version__
from fastvla_core.bags.spare_file import is_full
from fastvla_core.errors import DatasetError, FastVLAError
from fastvla_core.robot.contract import RobotContract
from training.bags.episodes import ActionSource, align_episode
from training.bags.parts import BagPart
from training.bags.reader import Bag, is_bag, open_bag, recordings_in
from training.bags.splitting import EpisodeSpan, SplitRule, find_episodes
from training.cache_files import CacheEntry, CacheManifest
from training.cache_folder import (
    EPISODES,
    Convert,
    Progress,
    Runner,
    disk_full,
    fill_cache,
    source_entry,
    source_key,
    split_key,
)
from training.cache_shard import CachedEpisode, Pictures, ShardWriter
from training.workers import worker_pool

SUCCESS_ONLY = ("success",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How recordings become steps.

    Attributes:
        outcomes: Episodes that ended otherwise are skipped; None takes all.
        instruction: Replaces the recorded one.
        split: Where episodes begin and end.
        action: Where labels come from.
        msgs: Folders of `.msg` files for types that the recordings do not define.
        validation: Share of the episodes that statistics leave out, as training does.

    Raises:
        DatasetError: a value that cannot be.
    """

    contract: RobotContract
    rate_hz: float = 10.0
    outcomes: tuple[str, ...] | None = SUCCESS_ONLY
    instruction: str | None = None
    split: SplitRule = dataclasses.field(default_factory=SplitRule)
    action: ActionSource = "command"
    pictures: Pictures = dataclasses.field(default_factory=Pictures)
    msgs: tuple[Path, ...] = ()
    validation: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.rate_hz <= 1000:
            raise DatasetError(
                f"{self.rate_hz} steps per second", mend="give more than 0, at most 1000"
            )
        if self.instruction is not None and not self.instruction.strip():
            raise DatasetError("the instruction is empty", mend="say what the task was")


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
    """As `convert_bags`, with the choices that a training run has."""
    conversion = Conversion(
        contract=contract,
        rate_hz=rate_hz,
        outcomes=None if outcomes is None else tuple(sorted(outcomes)),
        instruction=instruction,
    )
    return convert_bags(
        bag_dirs, cache_dir, conversion=conversion, run=in_processes(workers), progress=progress
    )


def convert_bags(
    bag_dirs: Sequence[str | Path],
    cache_dir: str | Path,
    *,
    conversion: Conversion,
    run: Runner,
    progress: Progress | None = None,
) -> CacheManifest:
    """Convert bags, or folders of bags; bags that are in the cache already are not read again.

    Args:
        run: Where the work is done: `in_processes`, or on a cluster.

    Raises:
        DatasetError: no bag gives a usable step, or the disk is full.
    """
    settings = {
        "version": __version__,
        "kind": "bags",
        **dataclasses.asdict(dataclasses.replace(conversion, msgs=())),
        "contract": conversion.contract.to_dict(),
        "msgs": [str(folder) for folder in conversion.msgs],
    }
    path = Path(cache_dir)
    return fill_cache(
        find_bags(bag_dirs),
        path,
        settings=settings,
        convert=functools.partial(_convert_bag, path=path.absolute(), conversion=conversion),
        run=run,
        progress=progress,
    )


def in_processes(workers: int | None = None) -> Runner:
    """Runs conversions in worker processes, by default one per core."""
    count = workers or len(os.sched_getaffinity(0))

    def run(convert: Convert, sources: Sequence[Path]) -> Iterator[CacheEntry]:
        if count == 1 or len(sources) < 2:
            yield from map(convert, sources)
            return
        with worker_pool(min(count, len(sources))) as pool:
            for job in as_completed([pool.submit(convert, source) for source in sources]):
                yield job.result()

    return run


def _convert_bag(source: Path, *, path: Path, conversion: Conversion) -> CacheEntry:
    entry = source_entry(source, with_hash=True)
    try:
        with open_bag(source, msgs=conversion.msgs) as bag:
            return _convert_open(bag, entry, path=path, conversion=conversion)
    except FastVLAError as error:
        return dataclasses.replace(entry, skipped=str(error), failed=True)
    except OSError as error:
        if is_full(error):
            raise disk_full(path) from error
        reason = f"{source}: {error.strerror or error}"
        return dataclasses.replace(entry, skipped=reason, failed=True)
    except Exception as error:  # one recording must not end the conversion of the others
        reason = f"{source}: {type(error).__name__}: {error}"
        return dataclasses.replace(entry, skipped=reason, failed=True)


def _convert_open(bag: Bag, entry: CacheEntry, *, path: Path, conversion: Conversion) -> CacheEntry:
    spans = find_episodes(bag, rule=conversion.split, contract=conversion.contract)
    one = conversion.split.kind == "bag"
    episodes = []
    for number, span in enumerate(spans):
        if conversion.outcomes is not None and span.outcome not in conversion.outcomes:
            reason = f"its outcome is '{span.outcome or 'not recorded'}'; --outcome any takes it"
            if one:
                return dataclasses.replace(entry, outcome=span.outcome, skipped=reason)
            episodes.append(CachedEpisode(outcome=span.outcome, skipped=reason))
            continue
        try:
            episodes.append(
                _convert_span(bag, span, entry, number=number, path=path, conversion=conversion)
            )
        except FastVLAError as error:
            if one:
                raise
            episodes.append(CachedEpisode(outcome=span.outcome, skipped=error.message, failed=True))
    lost = tuple(problem.message for problem in bag.problems if problem.loses_data)
    outcome = spans[0].outcome if one else None
    return dataclasses.replace(entry, episodes=tuple(episodes), outcome=outcome, lost=lost)


def _convert_span(
    bag: Bag,
    span: EpisodeSpan,
    entry: CacheEntry,
    *,
    number: int,
    path: Path,
    conversion: Conversion,
) -> CachedEpisode:
    file = f"{EPISODES}/{source_key(Path(entry.source))}_{number:04d}.episode"
    contract = conversion.contract
    writer = ShardWriter(path / file, contract=contract, pictures=conversion.pictures)
    with writer:
        table = align_episode(
            BagPart(bag=bag, span=span),
            contract=contract,
            sink=writer,
            rate_hz=conversion.rate_hz,
            instruction=conversion.instruction,
            action=conversion.action,
        )
        size, digest = writer.finish(table)
    return CachedEpisode(
        file=file,
        bytes=size,
        sha256=digest,
        frames=len(table),
        instruction=table.instruction,
        outcome=table.outcome,
        dropped=table.dropped,
        bad_messages=table.bad_messages,
        late_messages=table.late_messages,
        unused_messages=table.unused_messages,
        notes=table.notes,
        split_key=split_key(entry.sha256, number),
    )
