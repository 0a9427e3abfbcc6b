"""Batches of aligned steps from a cache: reproducible by step number, so that a resume is exact.

Shape suffixes: b batch, c camera, t chunk step, a action, s state.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
import os
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvla_core.errors import DatasetError
from training.augmentation import NO_AUGMENTATION, Augmentation, augment
from training.cache import Cache
from training.cache_files import ImageRows
from training.cache_images import CachedImages
from training.cache_statistics import held_mask
from training.camera_dropout import CameraDropout, draw_hidden, hiding_chances
from training.key_frames import KeyPoses

Reword: TypeAlias = Callable[[str, np.random.Generator], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One training batch.

    Attributes:
        images: camera to uint8 [B, H, W, 3].
        image_mask: bool [B, cameras], False where a camera is missing or dropped.
        state: float32 [B, S].
        actions: float32 [B, T, A], absolute targets; the last one repeats beyond the end.
        action_is_pad: bool [B, T], True where one is only repeated.
        tasks: B instructions.
        key_pose: float32 [B, K], see `KeyPoses`; None where nothing learns from it.
        earlier: Images, masks and states of the steps before, oldest first; at the start of an
            episode its first step.
    """

    images: dict[str, Tensor]
    image_mask: Tensor
    state: Tensor
    actions: Tensor
    action_is_pad: Tensor
    tasks: list[str]
    key_pose: Tensor | None = None
    earlier: tuple[dict[str, Any], ...] = ()

    @property
    def newest(self) -> dict[str, Any]:
        """Images, mask and state of the present step, as `earlier` has them."""
        return {"images": self.images, "image_mask": self.image_mask, "state": self.state}

    def part(self, rows: slice) -> Batch:
        """Some of its samples."""
        return Batch(
            **_part(self.newest, rows),
            actions=self.actions[rows],
            action_is_pad=self.action_is_pad[rows],
            tasks=self.tasks[rows],
            key_pose=None if self.key_pose is None else self.key_pose[rows],
            earlier=tuple(_part(moment, rows) for moment in self.earlier),
        )


def _part(moment: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    return {
        "images": {name: pixels[rows] for name, pixels in moment["images"].items()},
        "image_mask": moment["image_mask"][rows],
        "state": moment["state"][rows],
    }


class StepDataset:
    """Steps of a cache, split by the hash of their episode into training and validation.

    Args:
        cache: Opened cache; frames of one episode are contiguous.
        cameras: Cameras in the policy's order; each must be in the cache.
        chunk_size: Steps per action chunk, from the present one on.
        past_steps: Steps before it that belong to an observation, and to a chunk too.
        validation: Share of episodes kept out of training.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        cameras: tuple[str, ...],
        chunk_size: int,
        past_steps: int = 0,
        validation: float = 0.02,
    ) -> None:
        missing = [name for name in cameras if name not in cache.images]
        if missing:
            raise DatasetError(
                f"the data holds no camera '{missing[0]}' (it has {', '.join(cache.images)})",
                mend="record that camera, or choose a policy for these cameras",
            )
        self.cameras = cameras
        # Whoever learns from them sets it.
        self.key_poses: KeyPoses | None = None
        self._favoured: tuple[NDArray[np.int64], NDArray[np.int64], float] | None = None
        self._cache, self._chunk_size, self._past_steps = cache, chunk_size, past_steps
        keys = np.ones(len(cache)) if cache.split_key is None else cache.split_key
        is_validation = held_mask(keys, share=validation)
        self.training_frames = np.flatnonzero(~is_validation)
        self.validation_frames = np.flatnonzero(is_validation)
        if not len(self.training_frames):
            raise DatasetError("no usable step in the data", mend="`fastvla data inspect` says why")

    def __len__(self) -> int:
        return len(self.training_frames)

    def favour(self, rows: NDArray[np.bool_], *, share: float) -> None:
        """From now on draw a share of all samples from some of the steps.

        Args:
            rows: Of each step of the cache, [N].

        Raises:
            DatasetError: none of the steps for training is among them, or all are.
        """
        chosen = rows[self.training_frames]
        if chosen.all() or not chosen.any():
            raise DatasetError(
                f"a share of {share:g} is to be drawn from {int(chosen.sum())} of {len(chosen)} "
                "steps",
                mend="record more, or leave the share out",
            )
        self._favoured = self.training_frames[chosen], self.training_frames[~chosen], share

    def draw(self, random: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Steps for training, each as likely as any other unless some are favoured."""
        if self._favoured is None:
            return random.choice(self.training_frames, size)
        some, others, share = self._favoured
        from_some = random.random(size) < share
        return np.where(from_some, random.choice(some, size), random.choice(others, size))

    def restricted(self, wanted: NDArray[np.bool_]) -> StepDataset:
        """The same with fewer steps, none of them favoured; shares the pictures in memory.

        Args:
            wanted: Of each step of the cache, [N].
        """
        _ = self._images
        other = copy.copy(self)
        other._favoured = None
        other.training_frames = self.training_frames[wanted[self.training_frames]]
        other.validation_frames = self.validation_frames[wanted[self.validation_frames]]
        return other

    @property
    def digest(self) -> str:
        """Stands for what is drawn: equal for equal recordings, cut and favoured alike."""
        whole = self._cache.manifest.digest
        return whole if self._favoured is None else f"{whole} {self._favoured[2]:g}"

    @functools.cached_property
    def _images(self) -> Mapping[str, ImageRows]:
        # Statistics need none: gigabytes are read when the first batch asks for them.
        return _resident({name: self._cache.images[name] for name in self.cameras})

    def batch(
        self, frames: NDArray[np.int64], *, dropped: NDArray[np.bool_] | None = None
    ) -> Batch:
        """Gather frames [B]; `dropped` [B, cameras] hides cameras, but never the last one."""
        cache = self._cache
        first = np.asarray(cache.episode_start[frames])
        before = (np.maximum(frames - step, first) for step in range(self._past_steps, 0, -1))
        rows = self._chunk_rows(frames)
        return Batch(
            **self._moment(frames, dropped),
            actions=torch.from_numpy(np.asarray(cache.label[rows])),
            action_is_pad=torch.from_numpy(rows != self._unbounded_rows(frames)),
            tasks=self.instructions(frames),
            key_pose=None if self.key_poses is None else self.key_poses[frames],
            earlier=tuple(self._moment(past, dropped) for past in before),
        )

    def _moment(
        self, frames: NDArray[np.int64], dropped: NDArray[np.bool_] | None
    ) -> dict[str, Any]:
        cache = self._cache
        columns = [cache.cameras.index(name) for name in self.cameras]
        mask = np.asarray(cache.present[frames])[:, columns].copy()
        if dropped is not None:
            left = mask & ~dropped
            mask = np.where(left.any(1, keepdims=True), left, mask)
        return {
            "images": _gathered({name: self._images[name] for name in self.cameras}, frames),
            "image_mask": torch.from_numpy(mask),
            "state": torch.from_numpy(np.asarray(cache.state[frames])),
        }

    def _unbounded_rows(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        return frames[:, None] + np.arange(-self._past_steps, self._chunk_size)

    def instructions(self, frames: NDArray[np.int64]) -> list[str]:
        """What was asked for in each of the frames."""
        return [self._cache.instructions[i] for i in self._cache.instruction_id[frames]]

    def _chunk_rows(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        first = np.asarray(self._cache.episode_start[frames])[:, None]
        last = np.asarray(self._cache.episode_end[frames])[:, None] - 1
        return np.clip(self._unbounded_rows(frames), first, last)

    def training_targets(self) -> tuple[Tensor, Tensor]:
        """States [N, S] and absolute chunks [N, T, A] of the training split, for statistics."""
        rows = self._chunk_rows(self.training_frames)
        state = torch.from_numpy(np.asarray(self._cache.state[self.training_frames]))
        return state, torch.from_numpy(np.asarray(self._cache.label)[rows])


def _gathered(images: Mapping[str, ImageRows], frames: NDArray[np.int64]) -> dict[str, Tensor]:
    """The pictures of frames [B] by camera, uint8 [B, H, W, 3].

    All are in one block. That is seldom more than 32 MB, and memory of up to that size glibc keeps
    for the next batch once the first was freed; what it takes anew from the system costs a
    seventh of the time in which small JPEGs are unpacked.
    """
    shapes = [(len(frames), *rows.shape[1:]) for rows in images.values()]
    ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()
    block, found = np.empty(ends[-1], np.uint8), {}
    for (name, rows), shape, end in zip(images.items(), shapes, ends):
        out = block[end - math.prod(shape) : end].reshape(shape)
        if isinstance(rows, CachedImages):
            rows.read(frames, out=out)
        else:
            # The default mode would gather into a copy first; frames are rows that are there.
            np.take(rows, frames, axis=0, out=out, mode="clip")
        found[name] = torch.from_numpy(out)
    return found


def _resident(images: Mapping[str, ImageRows]) -> Mapping[str, ImageRows]:
    """Raw images in memory where half of what is free holds them, else as they are on disk.

    Batches are drawn at random: from a file that is not cached they come at the disk's pace, which
    was a fifth of the training's. What is stored as JPEG stays so: it takes a tenth of the memory,
    and the system keeps the files that are read again and again.
    """
    stored = {k: v for k, v in images.items() if isinstance(v, CachedImages) and v.is_raw}
    needed = sum(pixels.nbytes for pixels in stored.values())
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 2 * needed > free:
        return images
    return {**images, **{name: pixels[:] for name, pixels in stored.items()}}


def training_batch(
    dataset: StepDataset,
    *,
    seed: int,
    step: int,
    batch_size: int,
    camera_dropout: CameraDropout,
    reword: Reword | None = None,
    rows: NDArray[np.int64] | None = None,
    augmentation: Augmentation = NO_AUGMENTATION,
) -> Batch:
    """The batch of one training step: a function of (seed, step) alone.

    Args:
        rows: Gather only these of its samples; the others are drawn all the same.
        camera_dropout: Chance per sample that one of its cameras is hidden; never all of them.
        reword: Gives an instruction other words.
        augmentation: How pictures are changed; never outside of training.
    """
    random = np.random.default_rng([seed, step])
    frames = dataset.draw(random, batch_size)
    chances = hiding_chances(camera_dropout, dataset.cameras)
    dropped = draw_hidden(chances, random, size=batch_size)
    rows = np.arange(batch_size) if rows is None else rows
    batch = dataset.batch(frames[rows], dropped=dropped[rows])
    if augmentation != NO_AUGMENTATION:
        # Its own stream of numbers: the frames of a step do not depend on it.
        changed = augment(
            {name: pixels.numpy() for name, pixels in batch.images.items()},
            augmentation,
            np.random.default_rng([seed, step, 1]),
            rows=rows,
            batch_size=batch_size,
        )
        tensors = {name: torch.from_numpy(pixels) for name, pixels in changed.items()}
        batch = dataclasses.replace(batch, images=tensors)
    if reword is None:
        return batch
    tasks = [reword(task, random) for task in dataset.instructions(frames)]
    return dataclasses.replace(batch, tasks=[tasks[row] for row in rows])


def prefetch(
    dataset: StepDataset,
    *,
    seed: int,
    steps: range,
    batch_size: int,
    camera_dropout: CameraDropout,
    reword: Reword | None = None,
    rows: NDArray[np.int64] | None = None,
    augmentation: Augmentation = NO_AUGMENTATION,
    depth: int = 4,
) -> Generator[Batch, None, None]:
    """Batches of `steps` in order, gathered ahead by one thread; see `training_batch`.

    Errors surface here.
    """
    queue: Queue[Batch | BaseException] = Queue(depth)
    stop = threading.Event()

    def put(item: Batch | BaseException) -> None:
        while not stop.is_set():
            with contextlib.suppress(Full):
                queue.put(item, timeout=0.2)
                return

    def work() -> None:
        try:
            for step in steps:
                if stop.is_set():
                    return
                put(
                    training_batch(
                        dataset,
                        seed=seed,
                        step=step,
                        batch_size=batch_size,
                        camera_dropout=camera_dropout,
                        reword=reword,
                        rows=rows,
                        augmentation=augmentation,
                    )
                )
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        for _ in steps:
            item = queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while thread.is_alive():
            try:
                queue.get_nowait()
            except Empty:
                thread.join(0.05)
