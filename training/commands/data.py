"""`fastvla data`: look into recordings, and convert them for training."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections import Counter
from pathlib import Path

from fastvla_core.arguments import positive_float, positive_int
from fastvla_core.errors import BagError, ContractError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract
from training.bags.inspection import NOT_READABLE, READABLE_WITH_LOSSES, BagReport, inspect_bag
from training.bags.reader import open_bag
from training.cache import CacheManifest, build_cache, find_bags
from training.cache_build import SUCCESS_ONLY
from training.progress import CountBar

HELP = """Look into recordings (`inspect`), or convert them to the cache that training reads
(`convert`). Both exit with 0 when all of it can be read and with 1 when a part is lost; `inspect`
with 2 when nothing can be read."""

_VERDICTS = ("readable", "readable, a part is lost", "not readable")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    inspect = actions.add_parser("inspect", help="what a recording holds and what is wrong")
    inspect.add_argument("bag", type=Path, help="bag folder, or .mcap, .db3, .mcap.zstd file")
    inspect.add_argument("--json", action="store_true", help="print it as JSON")
    convert = actions.add_parser("convert", help="recordings to a cache for training")
    convert.add_argument("bags", type=Path, nargs="+", help="bags, or folders that hold bags")
    convert.add_argument("--out", type=Path, required=True, help="folder of the cache")
    convert.add_argument("--contract", help="FILE or name; default: the one in the recordings")
    convert.add_argument(
        "--rate", type=positive_float, default=10.0, help="steps per second (default 10)"
    )
    convert.add_argument(
        "--outcome",
        choices=["success", "any"],
        default="success",
        help="which episodes to take (default: success)",
    )
    convert.add_argument("--instruction", help="the task, where the recording does not say it")
    convert.add_argument("--workers", type=positive_int, help="processes (default: one per core)")
    convert.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do one action; its exit status is in HELP."""
    return _inspect(args) if args.action == "inspect" else _convert(args)


def _inspect(args: argparse.Namespace) -> int:
    report = inspect_bag(args.bag)
    if args.json:
        print(json.dumps(dataclasses.asdict(report), indent=1))
    else:
        print(_describe(report))
    return report.verdict


def _describe(report: BagReport) -> str:
    lines = [f"{report.path}: {_VERDICTS[report.verdict]}"]
    if report.verdict != NOT_READABLE:
        lines.append(
            f"{report.storage}, {len(report.files)} file(s), {report.duration_s:.2f} s, "
            f"{report.messages} messages"
            + (f", recorded with ROS {report.distribution}" if report.distribution else "")
        )
        lines.append(f"instruction: {report.instruction or '(not recorded)'}")
        lines.append(f"outcome: {report.outcome or '(not recorded)'}")
        lines.append(f"robot contract: {report.contract or '(not recorded)'}")
    for topic in report.topics:
        rate = f"{topic.rate_hz:8.2f} Hz" if topic.rate_hz else " " * 11
        gap = f"  largest gap {topic.largest_gap_s:.3f} s" if topic.largest_gap_s else ""
        lines.append(f"  {topic.count:7} {rate}  {topic.name}  [{topic.type}]{gap}")
    for problem in report.problems:
        mark = "LOST" if problem.loses_data else "note"
        lines.append(f"{mark}: {problem.message}\n  to mend: {problem.mend}")
    return "\n".join(lines)


def _convert(args: argparse.Namespace) -> int:
    contract = load_contract(args.contract) if args.contract else _recorded_contract(args.bags)
    with CountBar("bags") as bar:
        manifest = build_cache(
            args.bags,
            args.out,
            contract=contract,
            rate_hz=args.rate,
            workers=args.workers,
            outcomes=None if args.outcome == "any" else SUCCESS_ONLY,
            instruction=args.instruction,
            progress=bar,
        )
    print(json.dumps(_summary(manifest)) if args.json else _describe_cache(manifest))
    lossy = any(entry.failed or entry.lost for entry in manifest.entries)
    return READABLE_WITH_LOSSES if lossy else 0


def _recorded_contract(paths: list[Path]) -> RobotContract:
    for bag_path in find_bags(paths):
        with contextlib.suppress(BagError), open_bag(bag_path) as bag:
            if bag.contract is not None:
                return bag.contract
    raise ContractError(
        "no recording says which robot it is of", mend="give the robot's --contract FILE"
    )


def _summary(manifest: CacheManifest) -> dict[str, object]:
    dropped: Counter[str] = Counter()
    for entry in manifest.entries:
        dropped.update(entry.dropped or {})
    return {
        "frames": manifest.frames,
        "episodes": manifest.episodes,
        "rate_hz": manifest.rate_hz,
        "instructions": list(manifest.instructions),
        "dropped_steps": dict(dropped),
        "skipped": {entry.source: entry.skipped for entry in manifest.skipped},
        "lost": {entry.source: list(entry.lost) for entry in manifest.entries if entry.lost},
    }


def _describe_cache(manifest: CacheManifest) -> str:
    summary = _summary(manifest)
    lines = [
        f"{manifest.frames} steps at {manifest.rate_hz:g} Hz from {manifest.episodes} episodes, "
        f"{len(manifest.instructions)} instructions"
    ]
    dropped = summary["dropped_steps"]
    assert isinstance(dropped, dict)
    lines += [f"left out: {number} steps, {reason}" for reason, number in dropped.items()]
    return "\n".join([*lines, *manifest.remarks])
