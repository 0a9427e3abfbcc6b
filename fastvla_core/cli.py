"""The `fastvla` command: a lazy table of sub-commands; `--help` needs no torch and no ROS."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from fastvla_core import __version__
from fastvla_core.errors import FastVLAError

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("fastvla_ros.commands_cli.demo", "simulated robot, server, three goals, a video"),
    "bringup": ("fastvla_ros.commands_cli.bringup", "start the nodes, as `ros2 launch` does"),
    "goal": ("fastvla_ros.commands_cli.goal", "send an instruction to a running server"),
    "doctor": ("fastvla_ros.commands_cli.doctor", "check machine, contract and checkpoint"),
    "record": ("training.commands.record", "record an episode into a bag"),
    "data": ("training.commands.data", "inspect bags; convert them for training"),
    "train": ("training.commands.train", "fine-tune a policy from a folder of bags"),
    "eval": ("training.commands.evaluate", "closed-loop success in the simulator"),
    "quantize": ("fastvla_core.quant.command", "write a checkpoint with NF4 or 8-bit weights"),
    "models": ("fastvla_core.models.command", "list policies; explain a checkpoint"),
    "serve": ("fastvla_core.remote.command", "serve a policy to robots on other machines"),
    "bench": ("training.commands.bench", "measure latency, control rate, speed"),
}  # fmt: skip
"""Sub-command to (module, one line of help). A module has HELP, add_arguments and run."""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class CommandModule(Protocol):
    """What a sub-command's module offers."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns its exit status.

    0 success, 1 the work failed, 2 wrong usage, 130 interrupted; commands add their own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="fastvla",
        description="Vision-Language-Action policies on ROS 2 robots.",
        epilog="`fastvla COMMAND --help` explains a command. Exit status: 0 success, "
        "1 failed, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"fastvla {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of mended errors")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    module: CommandModule | None = None
    for name, (path, help_line) in COMMANDS.items():
        sub = commands.add_parser(name, help=help_line, add_help=name == chosen)
        if name == chosen:
            module = cast(CommandModule, importlib.import_module(path))
            sub.description = module.HELP
            module.add_arguments(sub)
    args = parser.parse_args(arguments)
    if module is None:
        parser.print_help()
        return EXIT_USAGE
    return _run(module, args)


def _run(module: CommandModule, args: argparse.Namespace) -> int:
    try:
        return module.run(args)
    except FastVLAError as error:
        if args.debug:
            raise
        print(f"fastvla {args.command}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"fastvla {args.command}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    # A path that cannot be written, a full disk: the user's matter, wherever it shows.
    except OSError as error:
        if args.debug:
            raise
        print(f"fastvla {args.command}: {_explain(error)}", file=sys.stderr)
        return EXIT_FAILED


def _explain(error: OSError) -> FastVLAError:
    place = f"{error.filename}: " if error.filename else ""
    return FastVLAError(
        f"{place}{error.strerror or error}",
        mend="check path, permissions and free space; `fastvla --debug ...` shows where",
    )


if __name__ == "__main__":
    sys.exit(main())
