"""From the fields of joint states to the contract's order: the same live and from bags."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.foreign_words import clipped, listed

_LARGEST = float(np.finfo(np.float32).max)


def decode_joint_state(
    contract: RobotContract, *, names: Sequence[str], positions: Sequence[float] | NDArray[Any]
) -> NDArray[np.float32]:
    """Joint positions by name, float32 [S] in the order of `contract.state_names`; rad and m.

    Names that the contract does not know are passed over; `joint_states.names` renames.

    Raises:
        MessageError: no names, as many names as positions not given, a name twice or missing,
            a position that is not finite.
    """
    topic = contract.joint_states.topic
    if not names:
        raise MessageError(
            f"{topic}: the message names no joint",
            mend="the driver must fill `name`; positions alone cannot be told apart",
        )
    if len(names) != len(positions):
        raise MessageError(
            f"{topic}: {len(names)} names, but {len(positions)} positions",
            mend="the driver must give one position per name",
        )
    ours = contract.state_names
    columns = _columns(tuple(names), ours, contract.joint_states.names, topic=topic)
    wanted = np.asarray(positions, np.float64)[columns]
    # Not true of what is no number either.
    finite = np.abs(wanted) <= _LARGEST
    if not finite.all():
        bad = [name for name, good in zip(ours, finite) if not good]
        raise MessageError(
            f"{topic}: the position of {', '.join(bad)} is not finite",
            mend="check the encoder or the driver of this joint",
        )
    return wanted.astype(np.float32)


# A driver sends the same names a hundred times a second.
@functools.lru_cache(maxsize=64)
def _columns(
    names: tuple[str, ...],
    ours: tuple[str, ...],
    renamed: tuple[tuple[str, str], ...],
    *,
    topic: str,
) -> NDArray[np.intp]:
    """Where in a message each of the contract's joints stands."""
    to_ours = dict(renamed)
    places: dict[str, int] = {}
    for place, theirs in enumerate(names):
        name = to_ours.get(theirs, theirs)
        if places.setdefault(name, place) != place:
            raise MessageError(f"{topic}: joint '{clipped(name)}' is there twice")
    missing = [name for name in ours if name not in places]
    if missing:
        raise MessageError(
            f"{topic}: no position for {', '.join(missing)}; the message has {listed(names)}",
            mend="publish all joints in one message, or map the names in joint_states.names",
        )
    return np.asarray([places[name] for name in ours], np.intp)


def pick_stamp(contract: RobotContract, *, header_ns: int, receive_ns: int) -> int:
    """The time [ns] that a sample counts for: `sync.stamp`, or reception where the header is 0."""
    return header_ns if contract.sync.stamp == "header" and header_ns else receive_ns
