"""What crosses the boundaries is checked there: pixels, finite states, finite actions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastvla_core.errors import FastVLAError, ObservationError, PolicyError
from fastvla_core.types import ActionChunk, Observation

IMAGE = np.zeros((4, 4, 3), np.uint8)


def chunk(positions: np.ndarray) -> ActionChunk:
    return ActionChunk(stamp_ns=0, chunk_id=3, names=("a", "b"), dt_s=0.1, positions=positions)


def test_images_must_be_rgb_bytes_and_cannot_be_swapped_afterwards():
    for wrong in (IMAGE.astype(np.float32), IMAGE[..., 0], np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ObservationError, match="front"):
            Observation(
                stamp_ns=0, task="t", images={"front": wrong}, state=np.zeros(2, np.float32)
            )
    seen = Observation(stamp_ns=0, task="t", images={"f": IMAGE}, state=np.zeros(2, np.float32))
    with pytest.raises(TypeError):
        seen.images["g"] = IMAGE  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.task = "other"  # type: ignore[misc]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_refused(bad: float):
    with pytest.raises(ObservationError, match="finite"):
        Observation(stamp_ns=0, task="t", images={}, state=np.array([0, bad], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_names_joint_and_step(bad: float):
    positions = np.zeros((3, 2))
    positions[2, 1] = bad
    with pytest.raises(PolicyError, match="'b' at step 2"):
        chunk(positions)


def test_a_chunk_of_the_wrong_width_is_refused():
    with pytest.raises(PolicyError, match=r"\[T, 2\]"):
        chunk(np.zeros((3, 3)))


def test_an_error_shows_its_mend():
    assert str(FastVLAError("x.yaml: broken", mend="repair it")) == (
        "x.yaml: broken\n  to mend: repair it"
    )
    assert str(FastVLAError("x.yaml: broken")) == "x.yaml: broken"
