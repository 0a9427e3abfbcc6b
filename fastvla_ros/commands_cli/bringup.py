"""`fastvla bringup`: start the nodes without `ros2 launch`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from fastvla_ros.bringup_description import ARGUMENTS, BringupOptions, NodeSpec, describe

HELP = (
    "Start the policy server, the command guard and (unless --sim false) the simulated robot, as "
    "`ros2 launch fastvla bringup.launch.py` would. Runs until Ctrl-C or SIGTERM; when a node "
    "ends, everything is stopped and the exit status is 1."
)
_LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla bringup`: those of the launch file."""
    for field in fields(BringupOptions):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=field.default,
            type=truth if isinstance(field.default, bool) else type(field.default),
            metavar="true|false" if isinstance(field.default, bool) else field.name.upper(),
            help=f"{ARGUMENTS[field.name]} (default: {_shown(field.default)})",
        )


def run(args: argparse.Namespace) -> int:
    """Start the nodes and watch over them until a signal comes."""
    from fastvla_ros.doctor import network_buffers

    options = BringupOptions(**{f.name: getattr(args, f.name) for f in fields(BringupOptions)})
    check_options(options)
    buffers = network_buffers()
    if not options.sim and buffers.level != "ok":
        print(f"warning: {buffers.detail}\n  to mend: {buffers.mend}", file=sys.stderr)
    run_until_stopped(options, specs=describe(options))
    return 0


def run_until_stopped(options: BringupOptions, *, specs: Sequence[NodeSpec]) -> None:
    """Run these nodes until SIGINT or SIGTERM.

    Raises:
        FastVLAError: a node could not be made, or ended.
    """
    from fastvla_ros.bringup_run import running

    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stop.append(received))
    with running(options, specs=specs) as bringup:
        print("running; Ctrl-C stops everything", file=sys.stderr)
        bringup.wait(until=lambda: bool(stop))
        print("stopping", file=sys.stderr)


def check_options(options: BringupOptions) -> None:
    """Refuse what can be seen to be wrong before any node is started.

    Raises:
        FastVLAError: the contract, the checkpoint, the quantisation, the visual tokens or the log
            level are not usable.
    """
    from fastvla_core.errors import FastVLAError
    from fastvla_core.models.hub import find_checkpoint
    from fastvla_core.models.vision_tokens.options import chosen_tokens
    from fastvla_core.remote.address import is_remote, parse_url
    from fastvla_core.robot.contract_file import load_contract

    load_contract(options.contract)
    if options.quantization not in ("nf4", "int8", "none"):
        raise FastVLAError(
            f"quantization is '{options.quantization}'", mend="one of nf4, int8, none"
        )
    chosen_tokens(
        options.token_pruning,
        keep=options.token_keep,
        camera_reuse=options.camera_reuse,
        prefix_reuse=options.prefix_reuse,
    )
    if options.log_level.lower() not in _LOG_LEVELS:
        raise FastVLAError(
            f"log_level is '{options.log_level}'", mend=f"one of {', '.join(_LOG_LEVELS)}"
        )
    if is_remote(options.checkpoint):
        parse_url(options.checkpoint)
    else:
        find_checkpoint(options.checkpoint)


def truth(text: str) -> bool:
    """Read true or false as people write it."""
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"
