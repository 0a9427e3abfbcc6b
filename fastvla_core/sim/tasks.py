"""What can be asked of the table-top robot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fastvla_core.errors import SimError

Colour = Literal["red", "green", "blue"]
TaskKind = Literal["reach", "pick", "place", "stack", "push", "hold"]

COLOURS: tuple[Colour, ...] = get_args(Colour)
TASK_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
TASKS: tuple[TaskKind, ...] = ("reach", "pick", "place", "stack", "push")
"""What the shipped policy was trained to do; the other kinds are for teaching it something new."""
FIRST_EVALUATION_SEED = 10_000_000
"""Scenes from this seed on are for evaluation: demonstrations are never recorded of them."""

_CANONICAL: dict[TaskKind, str] = {
    "reach": "reach the {target} cube",
    "pick": "pick up the {target} cube",
    "place": "put the {target} cube in the bowl",
    "stack": "stack the {target} cube on the {reference} cube",
    "push": "push the {target} cube aside",
    "hold": "hold the {target} cube over the bowl",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to do with one cube.

    Attributes:
        kind: One of `TASK_KINDS`.
        target: Colour of the cube to act on.
        reference: Colour of the cube to stack on; None for every other kind.
        instruction: What the policy is told; the canonical sentence when left empty.

    Raises:
        SimError: the kind or a colour does not exist, or the reference does not fit the kind.
    """

    kind: TaskKind
    target: Colour
    reference: Colour | None = None
    instruction: str = ""

    def __post_init__(self) -> None:
        if self.kind not in TASK_KINDS:
            raise SimError(f"unknown task '{self.kind}'", mend=f"one of {', '.join(TASK_KINDS)}")
        for colour in (self.target, self.reference):
            if colour is not None and colour not in COLOURS:
                raise SimError(f"no {colour} cube", mend=f"one of {', '.join(COLOURS)}")
        if (self.kind == "stack") != (self.reference is not None):
            raise SimError(
                f"task '{self.kind}' with reference {self.reference!r}",
                mend="'stack' needs the colour of the lower cube, other tasks take none",
            )
        if self.reference == self.target:
            raise SimError(f"the {self.target} cube cannot be stacked on itself")
        if not self.instruction:
            object.__setattr__(self, "instruction", canonical(self))


def canonical(task: Task) -> str:
    """The plain sentence for a task, such as 'pick up the red cube'."""
    return _CANONICAL[task.kind].format(target=task.target, reference=task.reference)


def sample_task(kind: TaskKind, seed: int) -> Task:
    """A task of `kind` with colours drawn from `seed` and the canonical instruction."""
    rng = np.random.default_rng([seed, 7])
    target, reference = rng.permutation(len(COLOURS))[:2]
    return Task(
        kind=kind,
        target=COLOURS[target],
        reference=COLOURS[reference] if kind == "stack" else None,
    )
