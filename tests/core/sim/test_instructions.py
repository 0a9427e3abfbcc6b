"""The wordings of the tasks, and their parser."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from fastvla_core.sim import COLOURS, TASK_KINDS, Task, instruction, parse_instruction
from fastvla_core.sim.instructions import HELD_OUT_TEMPLATES, TRAINING_TEMPLATES
from fastvla_core.sim.tasks import TaskKind


@pytest.mark.parametrize("kind", TASK_KINDS)
def test_every_wording_is_understood(kind: TaskKind) -> None:
    for template in (*TRAINING_TEMPLATES[kind], *HELD_OUT_TEMPLATES[kind]):
        for target, other in permutations(COLOURS, 2):
            reference = other if kind == "stack" else None
            text = template.format(target=target, reference=reference)
            task = Task(kind=kind, target=target, reference=reference, instruction=text)
            assert parse_instruction(text) == task


@pytest.mark.parametrize("kind", TASK_KINDS)
def test_held_out_wordings_are_new_but_use_known_words(kind: TaskKind) -> None:
    training, held_out = TRAINING_TEMPLATES[kind], HELD_OUT_TEMPLATES[kind]
    assert len(training) >= 8
    assert 4 <= len(held_out) <= 5
    assert not set(training) & set(held_out)
    known = {word for template in training for word in template.split()}
    assert {word for template in held_out for word in template.split()} <= known


def test_no_wording_belongs_to_two_tasks() -> None:
    templates = [t for table in (TRAINING_TEMPLATES, HELD_OUT_TEMPLATES) for t in table.values()]
    sentences = [sentence for group in templates for sentence in group]
    assert len(sentences) == len(set(sentences))


@pytest.mark.parametrize(
    "text",
    ["", "pick up the cube", "pick up the yellow cube", "the red cube", "red blue pick",
     "stack the red cube and the blue cube", "put the red, green and blue cube in the bowl",
     "stack the red cube on the red cube"],
)  # fmt: skip
def test_what_names_no_task_is_not_understood(text: str) -> None:
    assert parse_instruction(text) is None


def test_wordings_are_drawn_from_the_right_set_and_repeat() -> None:
    task = Task(kind="place", target="green")
    for held_out, table in ((False, TRAINING_TEMPLATES), (True, HELD_OUT_TEMPLATES)):
        allowed = {template.format(target="green") for template in table["place"]}
        drawn = [
            instruction(task, np.random.default_rng(seed), held_out=held_out) for seed in range(60)
        ]
        assert set(drawn) == allowed
        assert drawn[7] == instruction(task, np.random.default_rng(7), held_out=held_out)
