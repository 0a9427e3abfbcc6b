"""Demonstrations of the scripted expert as bags, one per episode; the same seed, the same bags."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastvla_core.bags.writer import PARTIAL_SUFFIX
from fastvla_core.errors import DatasetError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.sim.catalogue import (
    contract_name,
    make_environment,
    metaworld_task,
    tabletop_kind,
)
from fastvla_core.sim.demonstrations import Demonstration, record_demonstration
from fastvla_core.sim.environment import Environment, EpisodeTask
from fastvla_core.sim.instructions import instruction
from fastvla_core.sim.rollout import PolicyFn
from fastvla_core.sim.tasks import FIRST_EVALUATION_SEED, TASK_KINDS, sample_task
from training.bags.writer import EXPERT_TOPIC, EpisodeWriter
from training.camera_dropout import CameraDropout, draw_hidden, hiding_chances
from training.workers import worker_pool

if TYPE_CHECKING:
    from fastvla_core.policy import FastVLA

SETTINGS_FILE = "recording.json"

_SEEDS_PER_TASK = 1_000_000
_SEEDS_PER_ATTEMPT = 100_000
_MAX_ATTEMPTS = 5
# Simulated time starts at 0, but a header stamp of 0 means "not set" in ROS.
_START_NS = 1_000_000_000

Progress = Callable[[int, int, int], None]
"""Called with episodes done, episodes in all, frames so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCount:
    """What became of one task's episodes in this run."""

    task: str
    kept: int = 0
    found: int = 0
    failed: int = 0
    attempts: int = 0
    frames: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A checkpoint that drives a random while before the expert takes over.

    So the situations that its mistakes lead to are demonstrated too; what it does is not recorded.

    Attributes:
        camera_dropout: Chance per episode that it drives with one camera hidden.
    """

    policy: Path
    camera_dropout: CameraDropout = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    folder: Path
    task: str
    seed: int
    noise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _SlotResult:
    task: str
    kept: bool
    attempts: int
    frames: int


def record_expert_episodes(
    out: str | Path,
    *,
    episodes: Mapping[str, int],
    seed: int,
    contract: RobotContract,
    workers: int = 2,
    noise: bool = True,
    driver: Driver | None = None,
    progress: Progress | None = None,
) -> list[TaskCount]:
    """Record until every task has its number of successful episodes, in `out/<task>/`.

    Episodes that are there already are not recorded again; the result does not depend on
    `workers`. Failed attempts are repeated with other scenes and never kept.

    Args:
        episodes: Task to number of episodes; the tasks of one robot.
        seed: First scene seed; the scenes of evaluations lie at 10,000,000 and above.
        noise: Disturb what is executed; the labels stay clean, on `expert_command`.
        driver: What acts before the expert takes over; None for the expert alone.

    Raises:
        DatasetError: a task of another robot than the contract's, a seed among those of
            evaluations, or `out` holds recordings made with other settings.
        SimError: there is no such task, or its simulator cannot start.
        DependencyError: its simulator is not installed.
    """
    out = Path(out)
    _check(episodes, seed, contract)
    settings: dict[str, object] = {"seed": seed, "noise": noise, "contract": contract.hash()}
    if driver is not None:
        weights = (driver.policy / "model.safetensors").read_bytes()
        settings["policy"] = hashlib.sha256(weights).hexdigest()
        settings["camera_dropout"] = driver.camera_dropout
    _keep_settings(out, settings)
    counts = {task: TaskCount(task=task) for task in episodes}
    slots = []
    for slot in _slots(out, episodes, seed=seed, noise=noise):
        if slot.folder.exists():
            counts[slot.task] = dataclasses.replace(
                counts[slot.task], found=counts[slot.task].found + 1
            )
        else:
            slots.append(slot)
    total = sum(episodes.values())
    done, frames = total - len(slots), 0
    for result in _run(slots, contract=contract, driver=driver, workers=workers):
        counts[result.task] = _add(counts[result.task], result)
        done, frames = done + 1, frames + result.frames
        if progress:
            progress(done, total, frames)
    return list(counts.values())


def write_demonstration(
    folder: Path, demonstration: Demonstration, *, contract: RobotContract
) -> Path:
    """Write one demonstration as a bag, one observation and command per tick."""
    names, velocity = contract.action_names, demonstration.velocity
    noisy = not np.array_equal(demonstration.executed, demonstration.label)
    writer = EpisodeWriter(folder, contract=contract, instruction=demonstration.instruction)
    with writer:
        for k, stamp in enumerate(demonstration.stamp_ns):
            stamp_ns = int(stamp) + _START_NS
            for camera, images in demonstration.images.items():
                writer.image(camera, stamp_ns=stamp_ns, image=images[k])
            writer.joint_state(
                names,
                stamp_ns=stamp_ns,
                positions=demonstration.state[k],
                velocities=None if velocity is None else velocity[k],
            )
            writer.command(
                names,
                stamp_ns=stamp_ns,
                positions=demonstration.executed[k],
                duration_s=demonstration.tick_s,
            )
            if noisy:
                writer.command(
                    names,
                    stamp_ns=stamp_ns,
                    positions=demonstration.label[k],
                    duration_s=demonstration.tick_s,
                    topic=EXPERT_TOPIC,
                )
        return writer.close("success" if demonstration.success else "failure")


def demonstration_task(name: str, seed: int) -> EpisodeTask:
    """The task of one scene; on the table-top with colours by the seed, worded as in training.

    Raises:
        SimError: there is no such task.
    """
    other = metaworld_task(name)
    if other is not None:
        return other
    task = sample_task(tabletop_kind(name), seed)
    words = instruction(task, np.random.default_rng([seed, 13]))
    return dataclasses.replace(task, instruction=words)


def _check(episodes: Mapping[str, int], seed: int, contract: RobotContract) -> None:
    for task, number in episodes.items():
        robot = load_contract(contract_name(task))
        if set(robot.action_names) != set(contract.action_names):
            raise DatasetError(
                f"'{task}' is done by the robot '{robot.name}', not by '{contract.name}'",
                mend=f"give the contract of that robot: {robot.name}",
            )
        if not 0 <= number <= _SEEDS_PER_ATTEMPT:
            raise DatasetError(
                f"{number} episodes of '{task}': expected 0 to {_SEEDS_PER_ATTEMPT}",
                mend="record several folders with different seeds",
            )
    last = FIRST_EVALUATION_SEED - len(TASK_KINDS) * _SEEDS_PER_TASK
    if not 0 <= seed <= last:
        raise DatasetError(
            f"seed {seed}: expected 0 to {last}",
            mend=f"scenes from seed {FIRST_EVALUATION_SEED} on are kept for evaluation",
        )


def _keep_settings(out: Path, settings: dict[str, object]) -> None:
    file = out / SETTINGS_FILE
    if file.is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != settings:
            raise DatasetError(
                f"{out}: holds recordings made with another seed, noise, contract or policy",
                mend="give another folder, or delete this one",
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    # A half-written file would refuse every later run.
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    os.replace(partial, file)


def _slots(out: Path, episodes: Mapping[str, int], *, seed: int, noise: bool) -> Iterator[_Slot]:
    kinds: tuple[str, ...] = TASK_KINDS
    for task, count in episodes.items():
        # The table-top's tasks share a scene: no two are shown the same one.
        first = seed + (kinds.index(task) * _SEEDS_PER_TASK if task in kinds else 0)
        for number in range(count):
            folder = out / task / f"{task.rpartition('/')[2]}_{number:05d}"
            yield _Slot(folder=folder, task=task, seed=first + number, noise=noise)


def _run(
    slots: list[_Slot], *, contract: RobotContract, driver: Driver | None, workers: int
) -> Iterator[_SlotResult]:
    if not slots:
        return
    with worker_pool(
        min(workers, len(slots)), start=_start_worker, arguments=(contract, driver)
    ) as pool:
        for future in as_completed([pool.submit(_record_slot, slot) for slot in slots]):
            yield future.result()


@dataclass(slots=True)
class _Worker:
    """What a worker process keeps between its jobs; made by the first, so that errors come out."""

    contract: RobotContract
    driver: Driver | None
    environment: Environment | None = None
    policy: FastVLA | None = None

    def environment_for(self, task: str) -> Environment:
        """All tasks of a recording are the same robot's, and so the same simulator's."""
        if self.environment is None:
            self.environment = make_environment(task)
        return self.environment

    def drive(self, seed: int) -> PolicyFn | None:
        """The driver of the episode with this seed, without the camera that it draws."""
        if self.driver is None:
            return None
        if self.policy is None:
            self.policy = _load_policy(self.driver.policy, self.contract)
        cameras = self.policy.config.cameras
        chances = hiding_chances(self.driver.camera_dropout, cameras)
        hidden = draw_hidden(chances, np.random.default_rng([seed, 17]), size=1)[0]
        return _without(
            self.policy.infer, {c for c, is_hidden in zip(cameras, hidden) if is_hidden}
        )


_workers: list[_Worker] = []


def _start_worker(contract: RobotContract, driver: Driver | None) -> None:
    _workers[:] = [_Worker(contract, driver)]


def _without(infer: PolicyFn, cameras: Collection[str]) -> PolicyFn:
    return lambda observation: infer(observation.without_cameras(cameras))


def _load_policy(policy: Path, contract: RobotContract) -> FastVLA:
    import torch

    from fastvla_core.policy import FastVLA

    torch.set_num_threads(1)
    return FastVLA.from_pretrained(policy, contract=contract)


def _record_slot(slot: _Slot) -> _SlotResult:
    worker = _workers[0]
    # A worker that was killed while writing leaves this behind.
    shutil.rmtree(slot.folder.with_name(slot.folder.name + PARTIAL_SUFFIX), ignore_errors=True)
    for attempt in range(_MAX_ATTEMPTS):
        seed = slot.seed + attempt * _SEEDS_PER_ATTEMPT
        demonstration = record_demonstration(
            worker.environment_for(slot.task),
            demonstration_task(slot.task, seed),
            seed,
            noise=slot.noise,
            start_with=worker.drive(seed),
        )
        if demonstration.success:
            write_demonstration(slot.folder, demonstration, contract=worker.contract)
            return _SlotResult(
                task=slot.task,
                kept=True,
                attempts=attempt + 1,
                frames=len(demonstration.stamp_ns),
            )
    return _SlotResult(task=slot.task, kept=False, attempts=_MAX_ATTEMPTS, frames=0)


def _add(count: TaskCount, result: _SlotResult) -> TaskCount:
    return dataclasses.replace(
        count,
        kept=count.kept + result.kept,
        failed=count.failed + (not result.kept),
        attempts=count.attempts + result.attempts,
        frames=count.frames + result.frames,
    )
