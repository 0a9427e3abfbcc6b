"""`fastvla doctor`: what is wrong with this machine and with the robot that runs on it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from fastvla_core.arguments import positive_float
from fastvla_ros.doctor import Finding, Options, examine

HELP = (
    "Check this machine (Python, torch, GPU, graphics, disk, ROS, network buffers), the robot "
    "contract, the checkpoint, and the robot that runs now against the contract (topics, types, "
    "QoS, rates, joints, cameras, clocks, nodes). Exit status: 0 everything can run (warnings "
    "included), 1 it cannot; with --strict warnings count, too."
)

_MARKS = {"ok": ("32", "ok"), "warning": ("33", "warning"), "error": ("31", "ERROR")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla doctor`."""
    defaults = Options()
    parser.add_argument(
        "--contract", default=defaults.contract, help="robot contract (%(default)s)"
    )
    parser.add_argument(
        "--checkpoint", default=defaults.checkpoint, help="policy to look at (%(default)s)"
    )
    parser.add_argument("--namespace", default="", help="of the robot's nodes")
    parser.add_argument(
        "--listen", type=positive_float, default=defaults.listen_s, metavar="S",
        help="how long to listen to the robot, to measure rates (%(default)g s)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=positive_float, default=defaults.timeout_s, metavar="S",
        help="end after about so long, whatever hangs (%(default)g s)",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="exit with 1 for a warning, too")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Print each finding as soon as it is there."""
    options = Options(
        contract=args.contract,
        checkpoint=args.checkpoint,
        namespace=args.namespace,
        listen_s=args.listen,
        timeout_s=args.timeout,
    )
    findings = []
    for finding in examine(options):
        findings.append(finding)
        if not args.json:
            print(_line(finding), flush=True)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    failing = ("warning", "error") if args.strict else ("error",)
    return 1 if any(finding.level in failing for finding in findings) else 0


def _line(finding: Finding) -> str:
    colour, word = _MARKS[finding.level]
    mark = f"{word:<8}"
    if sys.stdout.isatty():
        mark = f"\x1b[{colour}m{mark}\x1b[0m"
    text = f"{mark} {finding.name:<16} {finding.detail}"
    return f"{text}\n{'':26}to mend: {finding.mend}" if finding.mend else text
