"""`fastvla data`: look into recordings, convert them, and look after what came of it."""

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
from training.bags.splitting import parse_split
from training.cache import CacheManifest, Conversion, find_bags, open_cache
from training.cache_build import SUCCESS_ONLY, convert_bags, in_processes
from training.commands import data_interop
from training.commands.cache_options import add_cache_options, pictures_of
from training.progress import CountBar

HELP = """Look into recordings (`inspect`), convert them to the cache that training reads
(`convert`), check a cache (`verify`), describe it on one page (`card`); take data sets of others
into a cache (`import`: LeRobot v3, HDF5 of robomimic and LIBERO) and give a cache away (`export`:
LeRobot v3). `inspect` exits with 0 when all of it can be read, 1 when a part is lost, 2 when
nothing can be read; `convert`, `import` and `verify` with 1 when a part is lost or broken."""

_VERDICTS = ("readable", "readable, a part is lost", "not readable")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    inspect = actions.add_parser("inspect", help="what a recording holds and what is wrong")
    inspect.add_argument("bag", type=Path, help="bag folder, or .mcap, .db3, .mcap.zstd file")
    _add_msgs(inspect)
    inspect.add_argument("--json", action="store_true", help="print it as JSON")
    _add_convert(actions.add_parser("convert", help="recordings to a cache for training"))
    verify = actions.add_parser("verify", help="whether a cache is still what was made")
    verify.add_argument("cache", type=Path)
    verify.add_argument("--json", action="store_true", help="print it as JSON")
    card = actions.add_parser("card", help="a page about a cache: pictures, ranges, what was lost")
    card.add_argument("cache", type=Path)
    card.add_argument("--out", type=Path, help="the page (default: card.html in the cache)")
    data_interop.add_import(actions.add_parser("import", help="data sets of others to a cache"))
    data_interop.add_export(actions.add_parser("export", help="a cache as a LeRobot v3 data set"))


def _add_convert(convert: argparse.ArgumentParser) -> None:
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
    convert.add_argument(
        "--split",
        default="bag",
        metavar="RULE",
        help="where episodes begin and end: bag (default), gap:SECONDS, instruction[:TOPIC], "
        "marker:TOPIC_OR_SERVICE, ranges:FILE (bag, start_s, end_s per entry)",
    )
    convert.add_argument(
        "--action",
        dest="source",
        choices=["command", "next_state", "delta"],
        default="command",
        help="what is learnt: commanded targets (default), the state one step later, or targets "
        "from commanded increments",
    )
    convert.add_argument(
        "--clock",
        choices=["header", "receive"],
        help="whose stamps align the streams (default: sync.stamp of the contract)",
    )
    add_cache_options(convert)
    _add_msgs(convert)
    convert.add_argument("--workers", type=positive_int, help="processes (default: one per core)")
    convert.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS", help="convert on a Ray cluster"
    )
    convert.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_msgs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--msgs",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="PACKAGE/msg/*.msg of types that the recording does not define; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Do one action; its exit status is in HELP."""
    actions = {
        "inspect": _inspect,
        "convert": _convert,
        "verify": _verify,
        "card": _card,
        "import": data_interop.run_import,
        "export": data_interop.run_export,
    }
    return actions[args.action](args)


def _inspect(args: argparse.Namespace) -> int:
    report = inspect_bag(args.bag, msgs=args.msgs)
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
        late = f"  received {topic.clock.offset_s * 1e3:.1f} ms later" if topic.clock else ""
        drift = topic.clock.drift_ppm if topic.clock else None
        late += f" (drift {drift:.0f} ppm)" if drift is not None else ""
        lines.append(f"  {topic.count:7} {rate}  {topic.name}  [{topic.type}]{gap}{late}")
    for problem in report.problems:
        mark = "LOST" if problem.loses_data else "note"
        lines.append(f"{mark}: {problem.message}\n  to mend: {problem.mend}")
    return "\n".join(lines)


def _convert(args: argparse.Namespace) -> int:
    contract = load_contract(args.contract) if args.contract else _recorded_contract(args.bags)
    if args.clock is not None:
        sync = dataclasses.replace(contract.sync, stamp=args.clock)
        contract = dataclasses.replace(contract, sync=sync)
    conversion = Conversion(
        contract=contract,
        rate_hz=args.rate,
        outcomes=None if args.outcome == "any" else SUCCESS_ONLY,
        instruction=args.instruction,
        split=parse_split(args.split),
        action=args.source,
        pictures=pictures_of(args),
        msgs=tuple(folder.absolute() for folder in args.msgs),
        validation=args.validation,
    )
    run = in_processes(args.workers)
    if args.ray is not None:
        from training.ray_runner import on_ray

        run = on_ray(None if args.ray == "local" else args.ray)
    with CountBar("bags") as bar:
        manifest = convert_bags(args.bags, args.out, conversion=conversion, run=run, progress=bar)
    return report_cache(manifest, as_json=args.json)


def report_cache(manifest: CacheManifest, *, as_json: bool) -> int:
    """Say what a cache holds and what was left out of it; the exit status."""
    print(json.dumps(_summary(manifest)) if as_json else _describe_cache(manifest))
    return READABLE_WITH_LOSSES if any(entry.is_lossy for entry in manifest.entries) else 0


def _verify(args: argparse.Namespace) -> int:
    from training.cache_verify import verify_cache

    report = verify_cache(args.cache)
    if args.json:
        print(json.dumps(dataclasses.asdict(report), indent=1))
    else:
        state = f"{len(report.problems)} problems" if report.problems else "whole"
        print(f"{args.cache}: {state}; {report.episodes} episodes, {report.frames} good steps")
        print(*report.problems, *(f"note: {note}" for note in report.notes), sep="\n")
    return 1 if report.problems else 0


def _card(args: argparse.Namespace) -> int:
    from training.data_card import write_card

    print(write_card(open_cache(args.cache), args.out or args.cache / "card.html"))
    return 0


def _recorded_contract(paths: list[Path]) -> RobotContract:
    for bag_path in find_bags(paths):
        with contextlib.suppress(BagError), open_bag(bag_path) as bag:
            if bag.contract is not None:
                return bag.contract
    raise ContractError(
        "no recording says which robot it is of", mend="give the robot's --contract FILE"
    )


def _summary(manifest: CacheManifest) -> dict[str, object]:
    counts = {
        name: dict(sum((entry.counted(name) for entry in manifest.entries), Counter()))
        for name in ("dropped", "bad_messages", "late_messages", "unused_messages")
    }
    return {
        "frames": manifest.frames,
        "episodes": manifest.episodes,
        "rate_hz": manifest.rate_hz,
        "instructions": list(manifest.instructions),
        "dropped_steps": counts.pop("dropped"),
        **counts,
        "skipped": {entry.source: entry.skipped for entry in manifest.skipped},
        "lost": {entry.source: list(entry.lost) for entry in manifest.entries if entry.lost},
        "remarks": manifest.remarks,
    }


def _describe_cache(manifest: CacheManifest) -> str:
    lines = [
        f"{manifest.frames} steps at {manifest.rate_hz:g} Hz from {manifest.episodes} episodes, "
        f"{len(manifest.instructions)} instructions"
    ]
    kinds = {
        "dropped": "steps",
        "bad_messages": "broken messages of",
        "late_messages": "messages that came twice or too late of",
    }
    for name, what in kinds.items():
        total = sum((entry.counted(name) for entry in manifest.entries), Counter())
        separator = "," if name == "dropped" else ""
        lines += [f"left out: {n} {what}{separator} {key}" for key, n in total.items()]
    return "\n".join([*lines, *manifest.remarks])
