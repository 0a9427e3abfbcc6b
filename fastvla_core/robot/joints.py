"""From the fields of joint states to the contract's order: the same live and from bags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import MessageError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.foreign_words import clipped, listed


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
    renamed = dict(contract.joint_states.names)
    by_name: dict[str, float] = {}
    for theirs, position in zip(names, positions):
        name = renamed.get(theirs, theirs)
        if name in by_name:
            raise MessageError(f"{topic}: joint '{clipped(name)}' is there twice")
        by_name[name] = float(position)
    ours = contract.state_names
    missing = [name for name in ours if name not in by_name]
    if missing:
        raise MessageError(
            f"{topic}: no position for {', '.join(missing)}; the message has {listed(names)}",
            mend="publish all joints in one message, or map the names in joint_states.names",
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
        state = np.asarray([by_name[name] for name in ours], np.float32)
    finite = np.isfinite(state)
    if not finite.all():
        bad = [name for name, good in zip(ours, finite) if not good]
        raise MessageError(
            f"{topic}: the position of {', '.join(bad)} is not finite",
            mend="check the encoder or the driver of this joint",
        )
    return state


def pick_stamp(contract: RobotContract, *, header_ns: int, receive_ns: int) -> int:
    """The time [ns] that a sample counts for: `sync.stamp`, or reception where the header is 0."""
    return header_ns if contract.sync.stamp == "header" and header_ns else receive_ns
