"""`fastvla demo`: the simulated robot does what it is told."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HELP = (
    "Start the simulated table-top robot, the policy server and the command guard, give the robot "
    "goals in plain words, and show what it does: live progress, a table at the end, "
    "OUT/demo.mp4 and OUT/demo.png. Exit status: 0 every goal was done, 1 a goal failed."
)
GOALS = (
    "pick up the red cube",
    "put the green cube in the bowl",
    "stack the blue cube on the red cube",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla demo`."""
    parser.add_argument(
        "--goals", nargs="+", default=GOALS, metavar="TEXT",
        help=f"instructions, one after the other (default: {'; '.join(GOALS)})",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=1, help="scene of the first goal (default: %(default)s)"
    )
    parser.add_argument("--checkpoint", default="nano", help="policy (default: %(default)s)")
    parser.add_argument(
        "--quantization", choices=("nf4", "int8", "none"), default="nf4",
        help="of the policy's weights (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--contract", default="tabletop", help=argparse.SUPPRESS)
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="S",
        help="deadline of each goal in seconds (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the demo; everything but the result goes to stderr."""
    from fastvla_ros.bringup_description import BringupOptions
    from fastvla_ros.commands_cli.bringup import check_options
    from fastvla_ros.demo.runner import DemoOptions, check_goals, run_demo
    from fastvla_ros.demo.table import goals_table

    check_goals(args.goals)
    options = DemoOptions(
        goals=tuple(args.goals),
        seed=args.seed,
        out=args.out,
        goal_timeout_s=args.timeout,
        bringup=BringupOptions(
            contract=args.contract,
            checkpoint=args.checkpoint,
            quantization=args.quantization,
            device=args.device,
            seed=args.seed,
            # On a busy machine simulated time goes slower, and the robot does the same.
            use_sim_time=True,
            black_box=False,
            # That the guard holds between two goals is no news here.
            log_level="error",
        ),
    )
    check_options(options.bringup)
    report = run_demo(options, say=lambda line: print(line, file=sys.stderr, flush=True))
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        print(f"\n{goals_table(report.goals, colour=sys.stdout.isatty())}\n")
        print(f"{report.video}, {report.plot}   ({report.total_s:.0f} s in all)")
    return 0 if report.success else 1
