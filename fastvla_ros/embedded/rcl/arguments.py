"""`--ros-args`: remaps, parameters, log levels. Source: ROS 2 design, "Command Line Arguments"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastvla_ros.embedded.rcl._rclpy_pybind11 import RCLInvalidROSArgsError, UnknownROSArgsError
from fastvla_ros.embedded.rcl.parameter_overrides import (
    ParameterRule,
    parse_parameter,
    read_parameter_file,
)

# Options that take no value.
FLAGS = {
    "--enable-rosout-logs",
    "--disable-rosout-logs",
    "--enable-stdout-logs",
    "--disable-stdout-logs",
    "--enable-external-lib-logs",
    "--disable-external-lib-logs",
}
VALUED = {
    "-r",
    "--remap",
    "-p",
    "--param",
    "--params-file",
    "--log-level",
    "-e",
    "--enclave",
    "--log-config-file",
    "--log-file-name",
}
OPTIONS = (
    "options are -r FROM:=TO, -p NAME:=VALUE, --params-file FILE, --log-level [LOGGER:=]LEVEL, "
    "-e ENCLAVE, and what follows after `--` is not ROS's"
)
LOG_LEVELS = ("unset", "debug", "info", "warn", "error", "fatal")

TOKEN = r"[A-Za-z_][A-Za-z0-9_]*"
# What may stand on either side of a remap rule.
REMAPPED = re.compile(rf"(?:~|(?:~/|/)?{TOKEN}(?:/{TOKEN})*)\Z")
NODE_TARGET = re.compile(rf"{TOKEN}\Z")
NAMESPACE = re.compile(rf"/(?:{TOKEN}(?:/{TOKEN})*)?\Z")


@dataclass(frozen=True, slots=True)
class RemapRule:
    """`[node:][rostopic:// | rosservice://]from:=to`; `source` may be `__node` or `__ns`."""

    source: str
    target: str
    node: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class RosArguments:
    """What a command line says to ROS."""

    remaps: tuple[RemapRule, ...] = ()
    parameters: tuple[ParameterRule, ...] = ()
    log_levels: dict[str, str] = field(default_factory=dict)
    rosout: bool = True
    stdout: bool = True
    enclave: str = "/"


def parse_arguments(args: Sequence[str]) -> RosArguments:
    """Read every `--ros-args ... [--]` section.

    Raises:
        UnknownROSArgsError: there is no such option.
        RCLInvalidROSArgsError: its value is missing or malformed.
    """
    remaps: list[RemapRule] = []
    parameters: list[ParameterRule] = []
    log_levels: dict[str, str] = {}
    enclave = "/"
    flags: set[str] = set()
    for option, value in _options(args):
        if option in ("-r", "--remap"):
            remaps.append(parse_remap(value))
        elif option in ("-p", "--param"):
            parameters.append(parse_parameter(value))
        elif option == "--params-file":
            parameters += read_parameter_file(Path(value))
        elif option == "--log-level":
            logger, level = parse_log_level(value)
            log_levels[logger] = level
        elif option in ("-e", "--enclave"):
            enclave = parse_enclave(value)
        else:
            flags.add(option)
    return RosArguments(
        tuple(remaps),
        tuple(parameters),
        log_levels,
        rosout="--disable-rosout-logs" not in flags,
        stdout="--disable-stdout-logs" not in flags,
        enclave=enclave,
    )


def strip_ros_arguments(args: Sequence[str]) -> list[str]:
    """The arguments outside the `--ros-args` sections."""
    return [arg for arg, inside in _sections(args) if not inside]


def _sections(args: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Each argument and whether it belongs to ROS, the section marks included."""
    inside = False
    for arg in args:
        if arg == "--ros-args":
            inside = True
        yield arg, inside
        if arg == "--":
            inside = False


def _options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    words = [a for a, inside in _sections(args) if inside and a not in ("--ros-args", "--")]
    position = 0
    while position < len(words):
        option = words[position]
        position += 1
        if option in FLAGS:
            yield option, ""
            continue
        if option not in VALUED:
            raise UnknownROSArgsError(f"unknown ROS argument '{option}'", mend=OPTIONS)
        if position == len(words):
            raise RCLInvalidROSArgsError(f"ROS argument '{option}' lacks its value")
        yield option, words[position]
        position += 1


def parse_remap(text: str) -> RemapRule:
    """Read one remap rule.

    Raises:
        RCLInvalidROSArgsError: it is not `from:=to`, or a side is no name.
    """
    source, mark, target = text.partition(":=")
    if not mark:
        raise RCLInvalidROSArgsError(f"remap '{text}' is not FROM:=TO")
    kind, node = None, ""
    before, colon, rest = source.partition(":")
    if colon and not rest.startswith("//"):
        node, source = before, rest
    for prefix, name in (("rostopic://", "topic"), ("rosservice://", "service")):
        if source.startswith(prefix):
            source, kind = source.removeprefix(prefix), name
    source = "__node" if source == "__name" else source
    allowed = {"__node": NODE_TARGET, "__ns": NAMESPACE}.get(source, REMAPPED)
    good_node = not colon or node == "" or NODE_TARGET.match(node)
    if not (good_node and REMAPPED.match(source) and allowed.match(target)):
        raise RCLInvalidROSArgsError(f"remap '{text}': a name in it breaks ROS's rules")
    return RemapRule(source, target, node or None, kind)


def parse_log_level(text: str) -> tuple[str, str]:
    """Read `[logger:=]level`; the logger is "" when it is meant for all.

    Raises:
        RCLInvalidROSArgsError: there is no such level.
    """
    logger, _, level = text.rpartition(":=")
    if level.lower() not in LOG_LEVELS:
        raise RCLInvalidROSArgsError(
            f"'{level}' is not a log level", mend=f"levels are {', '.join(LOG_LEVELS[1:])}"
        )
    return logger, level


def parse_enclave(text: str) -> str:
    """Read the name of an enclave.

    Raises:
        RCLInvalidROSArgsError: it is not an absolute name.
    """
    if not NAMESPACE.match(text):
        raise RCLInvalidROSArgsError(f"enclave '{text}' is not an absolute name such as /robot")
    return text
