"""How people word the tasks: sentences to train with, others to test with, and a parser."""

from __future__ import annotations

import re

import numpy as np

from fastvla_core.sim.tasks import COLOURS, Colour, Task, TaskKind, canonical

__all__ = [
    "HELD_OUT_TEMPLATES",
    "TRAINING_TEMPLATES",
    "canonical",
    "instruction",
    "parse_instruction",
    "reword",
]

TRAINING_TEMPLATES: dict[TaskKind, tuple[str, ...]] = {
    "reach": (
        "reach the {target} cube",
        "reach for the {target} block",
        "go to the {target} cube",
        "move to the {target} box",
        "move the hand above the {target} cube",
        "move the gripper to the {target} block",
        "bring the hand to the {target} box",
        "hover over the {target} cube",
        "go above the {target} block",
        "approach the {target} box",
    ),
    "pick": (
        "pick up the {target} cube",
        "pick the {target} block up",
        "lift the {target} cube",
        "lift up the {target} box",
        "grab the {target} block",
        "take the {target} cube",
        "grasp the {target} box and lift it",
        "raise the {target} block",
        "pick the {target} cube up from the table",
        "grab the {target} box and raise it",
    ),
    "place": (
        "put the {target} cube in the bowl",
        "place the {target} block in the bowl",
        "drop the {target} box into the bowl",
        "put the {target} box into the bowl",
        "move the {target} block into the bowl",
        "take the {target} cube and put it in the bowl",
        "pick up the {target} box and place it in the bowl",
        "bring the {target} block to the bowl",
        "lift the {target} cube into the bowl",
        "in the bowl put the {target} cube",
    ),
    "stack": (
        "stack the {target} cube on the {reference} cube",
        "stack the {target} block onto the {reference} block",
        "put the {target} cube on the {reference} block",
        "place the {target} box on top of the {reference} box",
        "put the {target} block on top of the {reference} cube",
        "set the {target} cube onto the {reference} box",
        "pick up the {target} block and put it on the {reference} cube",
        "take the {target} box and stack it on the {reference} block",
        "move the {target} cube onto the {reference} cube",
        "on the {reference} block put the {target} box",
        "on top of the {reference} cube place the {target} block",
        "onto the {reference} box stack the {target} cube",
        "on the {reference} cube set the {target} block",
        "on top of the {reference} block stack the {target} box",
    ),
    "push": (
        "push the {target} cube aside",
        "push the {target} block to the side",
        "shove the {target} box aside",
        "slide the {target} cube to the side",
        "move the {target} block aside",
        "push the {target} box out of the way",
        "slide the {target} block aside",
        "nudge the {target} cube to the side",
        "push away the {target} block",
        "shove the {target} cube out of the way",
    ),
    "hold": (
        "hold the {target} cube over the bowl",
        "hold the {target} block above the bowl",
        "keep the {target} box over the bowl",
        "keep the {target} cube above the bowl",
        "pick up the {target} block and hold it over the bowl",
        "lift the {target} box and keep it above the bowl",
        "grab the {target} block and keep it over the bowl",
        "take the {target} box and hold it above the bowl",
    ),
}

HELD_OUT_TEMPLATES: dict[TaskKind, tuple[str, ...]] = {
    "reach": (
        "hover above the {target} box",
        "bring the gripper over the {target} block",
        "move the hand over to the {target} cube",
        "go for the {target} box",
    ),
    "pick": (
        "lift the {target} block from the table",
        "grab the {target} cube and pick it up",
        "raise up the {target} box",
        "take the {target} block and lift it up",
        "grasp the {target} cube",
    ),
    "place": (
        "drop the {target} cube in the bowl",
        "place the {target} box into the bowl",
        "in the bowl place the {target} block",
        "pick up the {target} block and drop it into the bowl",
        "take the {target} box to the bowl",
    ),
    "stack": (
        "stack the {target} box on top of the {reference} block",
        "move the {target} block on top of the {reference} box",
        "onto the {reference} cube place the {target} box",
        "pick up the {target} cube and stack it onto the {reference} block",
        "on the {reference} box stack the {target} cube",
    ),
    "push": (
        "slide the {target} box out of the way",
        "move the {target} cube to the side",
        "nudge the {target} block aside",
        "shove away the {target} box",
    ),
    "hold": (
        "hold the {target} box over the bowl",
        "keep the {target} block above the bowl",
        "pick up the {target} cube and hold it above the bowl",
        "lift the {target} block and hold it over the bowl",
    ),
}

_KIND_WORDS: tuple[tuple[TaskKind, frozenset[str]], ...] = (
    # The first line that shares a word with the sentence decides: "move the cube aside" is a push.
    ("hold", frozenset({"hold", "keep"})),
    ("place", frozenset({"bowl"})),
    ("push", frozenset({"aside", "away", "nudge", "push", "shove", "side", "slide", "way"})),
    ("pick", frozenset({"grab", "grasp", "lift", "pick", "raise", "take"})),
    ("reach", frozenset({"above", "approach", "go", "hover", "over", "reach", "to"})),
)
_ON_WORDS = frozenset({"on", "onto"})


def instruction(task: Task, rng: np.random.Generator, *, held_out: bool = False) -> str:
    """A random wording of a task, from the training sentences or from those kept for tests."""
    templates = (HELD_OUT_TEMPLATES if held_out else TRAINING_TEMPLATES)[task.kind]
    template = templates[int(rng.integers(len(templates)))]
    return template.format(target=task.target, reference=task.reference)


def reword(text: str, rng: np.random.Generator) -> str:
    """Another training sentence for the same task; a text that names no task stays as it is."""
    task = parse_instruction(text)
    return text if task is None else instruction(task, rng)


def parse_instruction(text: str) -> Task | None:
    """The task that a sentence asks for, or None when it names no task or no cube of this table."""
    words = re.findall(r"[a-z]+", text.lower())
    colours: list[Colour] = [colour for word in words for colour in COLOURS if colour == word]
    if len(colours) == 2 and colours[0] != colours[1]:
        return _parse_stack(words, colours, text)
    if len(colours) != 1:
        return None
    for kind, kind_words in _KIND_WORDS:
        if not kind_words.isdisjoint(words):
            return Task(kind=kind, target=colours[0], instruction=text)
    return None


def _parse_stack(words: list[str], colours: list[Colour], text: str) -> Task | None:
    """The lower cube is the first one named after 'on'."""
    place = next((i for i, word in enumerate(words) if word in _ON_WORDS), None)
    if place is None:
        return None
    reference = next((word for word in words[place:] if word in colours), None)
    if reference is None:
        return None
    first, second = colours
    target, lower = (second, first) if reference == first else (first, second)
    return Task(kind="stack", target=target, reference=lower, instruction=text)
