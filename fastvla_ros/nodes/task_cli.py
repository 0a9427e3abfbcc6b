"""Sends one instruction from the command line: the `task_cli` executable and `fastvla goal`."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastvla_ros.nodes.progress import ProgressLine
from fastvla_ros.runtime import ensure_ros

if TYPE_CHECKING:
    from fastvla_ros.nodes.task_client import GoalReport

EXIT_SUCCESS, EXIT_FAILED, EXIT_USAGE, EXIT_NO_SERVER = 0, 1, 2, 3
EXIT_REJECTED, EXIT_TIMEOUT, EXIT_CANCELED = 4, 5, 130
_EXITS = {"REJECTED": EXIT_REJECTED, "TIMEOUT": EXIT_TIMEOUT, "CANCELED": EXIT_CANCELED}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fastvla goal`."""
    parser.add_argument("text", metavar="TEXT", help="the instruction, in plain words")
    parser.add_argument(
        "--timeout", type=float, default=0.0, metavar="S",
        help="deadline of the goal in seconds (default: the server's)",
    )  # fmt: skip
    parser.add_argument(
        "--wait", type=float, default=5.0, metavar="S",
        help="how long to look for the policy server (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--namespace", default="", help="namespace of the policy server (default: none)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace, *, ros_args: Sequence[str] = ()) -> int:
    """Send the goal and follow it; returns the exit status."""
    if not args.text.strip():
        print(
            "the instruction is empty\n  to mend: say what to do, for example "
            "fastvla goal 'pick up the red cube'",
            file=sys.stderr,
        )
        return EXIT_USAGE
    if not (0 <= args.timeout < math.inf and 0 <= args.wait < math.inf):
        print("--timeout and --wait are seconds, at least 0", file=sys.stderr)
        return EXIT_USAGE
    # Whoever stops this command means the goal, too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _execute(args, ros_args=ros_args)
    except KeyboardInterrupt:
        print("interrupted; a goal that was sent ends at its deadline", file=sys.stderr)
        return EXIT_CANCELED
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_status(report: GoalReport) -> int:
    """0 only where the task was seen done; see `docs/ros.md`."""
    if report.outcome == "success":
        return EXIT_SUCCESS
    return _EXITS.get(report.error, EXIT_FAILED)


def _execute(args: argparse.Namespace, *, ros_args: Sequence[str]) -> int:
    ensure_ros()
    from fastvla_ros.bringup_spin import spinning_node
    from fastvla_ros.nodes.task_client import NoServerError, TaskClient

    line = ProgressLine(enabled=not args.json)
    with spinning_node("task_cli", namespace=args.namespace, ros_args=ros_args) as node:
        client = TaskClient(node)
        try:
            report = client.execute(
                args.text,
                timeout_s=args.timeout,
                on_progress=line.show,
                server_timeout_s=args.wait,
            )
        except NoServerError as error:
            line.end()
            print(error, file=sys.stderr)
            return EXIT_NO_SERVER
        finally:
            client.destroy()
    line.end()
    print(json.dumps(report.to_dict(), indent=1) if args.json else _summary(report))
    return exit_status(report)


def _summary(report: GoalReport) -> str:
    lines = [
        f"{report.task!r}: {report.outcome.upper()} ({report.status}"
        + (f", {report.error}" if report.error != "NONE" else "")
        + f", {report.elapsed_s:.1f} s)"
    ]
    if report.message:
        lines.append(f"  {report.message}")
    lines.append(
        f"  {report.inferences} inferences, p50 {report.latency_p50_s * 1e3:.0f} ms, "
        f"p99 {report.latency_p99_s * 1e3:.0f} ms; {report.commands_sent} commands, "
        f"{report.commands_limited} limited, {report.deadline_misses} deadlines missed"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `task_cli` executable; takes `--ros-args` after its own."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    at = arguments.index("--ros-args") if "--ros-args" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="task_cli", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments[:at]), ros_args=arguments[at:])
