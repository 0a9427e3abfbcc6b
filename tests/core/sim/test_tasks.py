"""Tasks say what is wrong with them."""

from __future__ import annotations

import pytest

from fastvla_core.errors import SimError
from fastvla_core.sim import TASK_KINDS, Task, canonical, sample_task


def test_the_canonical_sentence_is_the_default() -> None:
    task = Task(kind="stack", target="red", reference="blue")
    assert task.instruction == canonical(task) == "stack the red cube on the blue cube"
    assert Task(kind="push", target="red", instruction="shove it").instruction == "shove it"


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "throw", "target": "red"},
        {"kind": "pick", "target": "pink"},
        {"kind": "stack", "target": "red"},
        {"kind": "pick", "target": "red", "reference": "blue"},
        {"kind": "stack", "target": "red", "reference": "red"},
    ],
)
def test_an_impossible_task_is_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(SimError):
        Task(**arguments)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", TASK_KINDS)
def test_sampled_tasks_use_every_colour_and_repeat(kind: str) -> None:
    tasks = [sample_task(kind, seed) for seed in range(30)]  # pyright: ignore[reportArgumentType]
    assert {task.target for task in tasks} == {"red", "green", "blue"}
    assert tasks == [sample_task(kind, seed) for seed in range(30)]  # pyright: ignore[reportArgumentType]
