"""`fastvla data import` and `export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastvla_core.arguments import positive_float
from fastvla_core.errors import DatasetError
from fastvla_core.robot.contract_file import load_contract
from training.cache import open_cache
from training.commands.cache_options import add_cache_options, pictures_of
from training.progress import CountBar


def add_import(parser: argparse.ArgumentParser) -> None:
    """Options of `import`."""
    parser.add_argument("source", type=Path, help="LeRobot v3 folder, .hdf5 file or folder of them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cache")
    parser.add_argument("--contract", required=True, help="FILE or name of the robot's contract")
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="which pictures are the contract's camera NAME; may be repeated",
    )
    parser.add_argument("--rate", type=positive_float, help="steps per second (default: its own)")
    parser.add_argument(
        "--action",
        dest="label",
        choices=["command", "next_state", "delta"],
        help="its actions as targets (default), as increments, or the next state (default of HDF5)",
    )
    parser.add_argument("--instruction", help="the task, instead of the one that it says")
    parser.add_argument(
        "--rotate", type=int, choices=[0, 180], default=0, help="of the pictures; LIBERO: 180"
    )
    add_cache_options(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    parser.add_argument("cache", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")


def run_import(args: argparse.Namespace) -> int:
    """Import; 1 when a part could not be used."""
    from training.commands.data import report_cache
    from training.interop.hdf5_import import import_hdf5
    from training.interop.imported import ImportOptions
    from training.interop.lerobot_import import import_lerobot

    is_lerobot = (args.source / "meta" / "info.json").is_file()
    options = ImportOptions(
        contract=load_contract(args.contract),
        cameras=_cameras(args.camera),
        rate_hz=args.rate,
        action=args.label or ("command" if is_lerobot else "next_state"),
        instruction=args.instruction,
        pictures=pictures_of(args),
        rotate_180=args.rotate == 180,
        validation=args.validation,
    )
    with CountBar("sources") as bar:
        if is_lerobot:
            manifest = import_lerobot(args.source, args.out, options=options, progress=bar)
        else:
            manifest = import_hdf5(args.source, args.out, options=options, progress=bar)
    return report_cache(manifest, as_json=args.json)


def run_export(args: argparse.Namespace) -> int:
    """Export; says what the format could not take."""
    from training.interop.lerobot_export import export_lerobot

    result = export_lerobot(open_cache(args.cache), args.out)
    print(f"{args.out}: {result.episodes} episodes, {result.frames} frames")
    if result.left_out:
        print(f"left out: {result.left_out} steps that lack a picture of a camera")
    return 0


def _cameras(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for text, (name, _, key) in zip(given, pairs):
        if not name or not key:
            raise DatasetError(
                f"--camera {text}: is no NAME=KEY", mend="as in --camera front=agentview_rgb"
            )
    return {name: key for name, _, key in pairs}
