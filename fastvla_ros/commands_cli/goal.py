"""`fastvla goal`: send one instruction to a running policy server."""

from __future__ import annotations

import argparse

from fastvla_ros.nodes import task_cli

HELP = (
    "Send one instruction to a running policy server and follow it: state, chunk, latency, age "
    "of the observation. Ctrl-C cancels it. Exit status: 0 the task was done, 1 it failed or "
    "nobody can tell, 2 wrong usage, 3 no policy server or it is gone, 4 rejected, 5 the deadline "
    "passed, 130 canceled."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla goal`."""
    task_cli.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Send the goal."""
    return task_cli.run(args)
