"""Pictures are changed on the training path only, equal for equal seeds, within their bounds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastvla_core.errors import DatasetError
from tests.training.test_finetune import dataset_for, small_policy
from training.augmentation import NO_AUGMENTATION, Augmentation, augment
from training.dataset import training_batch
from training.recipe import load_recipe

ALL = Augmentation(crop=0.2, brightness=0.3, contrast=0.3, saturation=0.5, blur=0.5)


def pictures() -> dict[str, np.ndarray]:
    rows, columns = np.mgrid[0:48, 0:64]
    one = np.stack([4 * rows, 3 * columns, 255 - 4 * rows], axis=2).clip(0, 255).astype(np.uint8)
    return {"front": np.stack([one] * 8), "wrist": np.stack([one[::-1]] * 8)}


def changed(how: Augmentation, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return augment(pictures(), how, random, rows=np.arange(8), batch_size=8)


def test_equal_seeds_change_equally_and_every_sample_differs():
    first, again, other = changed(ALL), changed(ALL), changed(ALL, seed=1)
    for name, batch in first.items():
        assert batch.shape == pictures()[name].shape
        assert np.array_equal(batch, again[name])
        assert not np.array_equal(batch, other[name])
        assert len({image.tobytes() for image in batch}) == 8


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Augmentation)])
def test_each_kind_alone_changes_pictures(name):
    how = Augmentation(**{name: 0.5})
    front = changed(how)["front"]
    different = [not np.array_equal(a, b) for a, b in zip(front, pictures()["front"])]
    assert sum(different) >= (1 if name == "blur" else 7)
    assert abs(front.astype(int) - pictures()["front"]).mean() < 60


def test_a_crop_keeps_the_picture_and_moves_it_by_no_more_than_it_says():
    front = changed(Augmentation(crop=0.1))["front"]
    # The red channel is the row times four: a shift of rows shows there.
    moved = abs(front[..., 0].astype(int) - pictures()["front"][..., 0])
    assert moved.max() <= 4 * 48 * 0.1 + 8


def test_a_part_of_a_batch_is_changed_as_in_the_whole():
    whole = changed(ALL)
    rows = np.array([1, 4, 5])
    part = augment(
        {name: batch[rows] for name, batch in pictures().items()},
        ALL,
        np.random.default_rng(0),
        rows=rows,
        batch_size=8,
    )
    for name, batch in part.items():
        assert np.array_equal(batch, whole[name][rows])


def test_training_draws_the_same_frames_with_and_without_it():
    dataset = dataset_for(small_policy())
    options = {"seed": 3, "step": 5, "batch_size": 8, "camera_dropout": 0.5}
    plain = training_batch(dataset, **options)
    with_it = training_batch(dataset, **options, augmentation=ALL)
    again = training_batch(dataset, **options, augmentation=ALL)
    assert np.array_equal(plain.state, with_it.state)
    assert np.array_equal(plain.image_mask, with_it.image_mask)
    for name in plain.images:
        assert not np.array_equal(plain.images[name], with_it.images[name])
        assert np.array_equal(with_it.images[name], again.images[name])
    validation = dataset.batch(dataset.training_frames[:2])
    assert np.array_equal(validation.images["front"], dataset._images["front"][[0, 1]])


def test_recipes_choose_it_and_are_told_what_cannot_be(tmp_path):
    text = (
        "name: x\ncontract: tabletop\npolicy: nano\nnew: false\nrate_hz: 10.0\n"
        "training: {steps: 5, augmentation: {crop: 0.1, blur: 0.2}}\n"
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert load_recipe(str(path)).training.augmentation == Augmentation(crop=0.1, blur=0.2)
    assert load_recipe("finetune").training.augmentation == NO_AUGMENTATION
    path.write_text(text.replace("crop: 0.1", "crop: 0.9"))
    with pytest.raises(DatasetError, match=r"augmentation\.crop is 0\.9"):
        load_recipe(str(path))
