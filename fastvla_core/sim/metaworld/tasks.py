"""The fifty tasks of Meta-World and a sentence for each.

Meta-World names its tasks and describes none of them to a robot: the sentences are ours, written
from its paper's table of tasks. Source: Meta-World, arXiv:1910.10897.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from fastvla_core.errors import SimError

PREFIX = "metaworld/"
"""Before the name of one of its tasks, wherever tasks of several simulators can be named."""

INSTRUCTIONS: dict[str, str] = {
    "assembly-v3": "pick up the nut and put it on the peg",
    "basketball-v3": "dunk the ball into the basket",
    "bin-picking-v3": "move the cube from one bin to the other",
    "box-close-v3": "put the lid on the box",
    "button-press-topdown-v3": "press the button from the top",
    "button-press-topdown-wall-v3": "press the button behind the wall from the top",
    "button-press-v3": "press the button",
    "button-press-wall-v3": "press the button behind the wall",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "take the nut off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "lock the door",
    "door-open-v3": "open the door",
    "door-unlock-v3": "unlock the door",
    "drawer-close-v3": "close the drawer",
    "drawer-open-v3": "open the drawer",
    "faucet-close-v3": "close the faucet",
    "faucet-open-v3": "open the faucet",
    "hammer-v3": "hammer the nail in",
    "hand-insert-v3": "put the hand into the hole",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "insert the peg into the hole from the side",
    "peg-unplug-side-v3": "unplug the peg from the side",
    "pick-out-of-hole-v3": "pick the puck out of the hole",
    "pick-place-v3": "pick up the puck and bring it to the goal",
    "pick-place-wall-v3": "pick up the puck and bring it over the wall to the goal",
    "plate-slide-back-side-v3": "slide the plate out of the cabinet sideways",
    "plate-slide-back-v3": "slide the plate out of the cabinet",
    "plate-slide-side-v3": "slide the plate into the cabinet sideways",
    "plate-slide-v3": "slide the plate into the cabinet",
    "push-back-v3": "push the puck back to the goal",
    "push-v3": "push the puck to the goal",
    "push-wall-v3": "push the puck around the wall to the goal",
    "reach-v3": "reach the goal",
    "reach-wall-v3": "reach the goal behind the wall",
    "shelf-place-v3": "put the puck on the shelf",
    "soccer-v3": "kick the ball into the net",
    "stick-pull-v3": "pull the box with the stick",
    "stick-push-v3": "push the box with the stick",
    "sweep-into-v3": "sweep the puck into the hole",
    "sweep-v3": "sweep the puck off the table",
    "window-close-v3": "close the window",
    "window-open-v3": "open the window",
}
"""Task to what a policy is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaWorldTask:
    """One of Meta-World's tasks.

    Attributes:
        name: As Meta-World has it, such as `drawer-open-v3`.

    Raises:
        SimError: there is no such task; names those that are spelt alike.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in INSTRUCTIONS:
            near = difflib.get_close_matches(self.name, INSTRUCTIONS, n=4, cutoff=0.5)
            raise SimError(
                f"Meta-World has no task '{self.name}'",
                mend=f"did you mean {', '.join(near)}?"
                if near
                else f"one of {', '.join(INSTRUCTIONS)}",
            )

    @property
    def instruction(self) -> str:
        """What a policy is told."""
        return INSTRUCTIONS[self.name]
