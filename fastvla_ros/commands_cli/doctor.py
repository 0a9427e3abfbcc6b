"""`fastvla doctor`: what is wrong with this machine, and how to mend it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from fastvla_ros.doctor import Finding, examine

HELP = (
    "Check this machine (Python, torch, GPU, graphics, ROS, network buffers), the robot contract "
    "and the checkpoint. Exit status: 0 everything can run (warnings included), 1 it cannot."
)

_MARKS = {"ok": ("32", "ok"), "warning": ("33", "warning"), "error": ("31", "ERROR")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla doctor`."""
    parser.add_argument("--contract", default="tabletop", help="robot contract (%(default)s)")
    parser.add_argument("--checkpoint", default="nano", help="policy to look at (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Print each finding as soon as it is there."""
    findings = []
    for finding in examine(contract=args.contract, checkpoint=args.checkpoint):
        findings.append(finding)
        if not args.json:
            print(_line(finding), flush=True)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _line(finding: Finding) -> str:
    colour, word = _MARKS[finding.level]
    mark = f"{word:<8}"
    if sys.stdout.isatty():
        mark = f"\x1b[{colour}m{mark}\x1b[0m"
    text = f"{mark} {finding.name:<16} {finding.detail}"
    return f"{text}\n{'':26}to mend: {finding.mend}" if finding.mend else text
