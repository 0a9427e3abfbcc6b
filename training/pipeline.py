"""A whole run: demonstrations or bags, the cache, the policy, the training loop; resumable."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from fastvla_core.errors import DatasetError, ObservationError
from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract
from training.cache import Cache, build_cache, open_cache
from training.cache_build import SUCCESS_ONLY
from training.cache_folder import take_over
from training.conversation_training import read_lists
from training.dataset import StepDataset
from training.evaluate import EvaluationConfig, EvaluationResult, evaluate
from training.evaluation_table import row
from training.finetune import Trainer
from training.key_frames import KeyPoses
from training.optimization import multiplies_bf16, require_precision
from training.processes import ALONE, Processes, training_device
from training.progress import CountBar
from training.recipe import Recipe, TrainConfig
from training.record_expert import Driver, record_expert_episodes
from training.starting_policy import starting_point, starting_policy
from training.trainer_state import LossPoint

# How often a step may be seen. One episode, each of its 19 steps seen 3,400 times, took the shipped
# policy from 99 of 100 to 33 in that very task; in docs/finetuning.md each is seen eight times.
_OFTEN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Where a run left its policy and its loss curve, and how well the policy does.

    Attributes:
        evaluation: Per task, where the recipe ends with one; also in `out/evaluation.json`.
        wall_s: Seconds that everything took.
        key_pose_head: What tells the key poses, for a run that goes on from this one.
    """

    policy: Path
    curve: Path
    steps: int
    frames: int
    evaluation: tuple[EvaluationResult, ...] = ()
    wall_s: float = 0.0
    key_pose_head: Mapping[str, Tensor] | None = field(default=None, repr=False)


def run_recipe(
    recipe: Recipe,
    *,
    bags: Sequence[Path],
    out: Path,
    workers: int = 2,
    threads: int | None = None,
    outcomes: Collection[str] | None = SUCCESS_ONLY,
    instruction: str | None = None,
    processes: Processes = ALONE,
    device: torch.device | None = None,
) -> RunResult:
    """Do everything a recipe says; called again it goes on where it was stopped.

    The policy is `out/policy`; with corrections, what came before them is in `out/first`, and what
    came before any action in `out/key_poses`. The recipe's evaluation is done each time.

    Args:
        bags: Bags or folders of bags; without any, the recipe's demonstrations are recorded.
        outcomes: Which recordings are learnt from; None for all of them.
        instruction: Stands in for one that a bag lacks.
        processes: Those that train together; the first one records and reads for all.
        device: Where to train; None for this process's GPU, or the CPU where there is none.

    Raises:
        DatasetError: there is nothing to train on, or it is cut at another rate than the policy's.
        CheckpointError: the policy to start from cannot be loaded or cannot be trained.
        ContractError: policy and recordings are of different robots.
        SimError, DependencyError: the simulator of the demonstrations cannot start.
    """
    started = time.perf_counter()
    result = _run_training(
        recipe,
        bags=bags,
        out=out,
        workers=workers,
        threads=threads,
        outcomes=outcomes,
        instruction=instruction,
        processes=processes,
        device=device or training_device(),
    )
    found = _evaluate(result.policy, recipe, workers=workers) if processes.first else ()
    wall_s = time.perf_counter() - started
    if found:
        report = {"wall_s": wall_s, "results": [row(one) for one in found]}
        (out / "evaluation.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return dataclasses.replace(result, evaluation=found, wall_s=wall_s)


def _evaluate(policy: Path, recipe: Recipe, *, workers: int) -> tuple[EvaluationResult, ...]:
    last = recipe.evaluation
    if last is None:
        return ()
    return tuple(
        evaluate(EvaluationConfig(policy=str(policy), task=task, seeds=last.seeds, workers=workers))
        for task in recipe.demonstrations.episodes
    )


def _run_training(
    recipe: Recipe,
    *,
    bags: Sequence[Path],
    out: Path,
    workers: int,
    threads: int | None,
    outcomes: Collection[str] | None,
    instruction: str | None,
    processes: Processes,
    device: torch.device,
) -> RunResult:
    contract = load_contract(recipe.contract)
    # What does not fit must show before hours of recordings are read.
    start = starting_point(recipe, contract)
    require_precision(recipe.training.precision, device)
    if (talk := recipe.training.conversations) is not None:
        read_lists(talk)
    out.mkdir(parents=True, exist_ok=True)
    if threads:
        torch.set_num_threads(threads)
    record = functools.partial(_record, contract=contract, workers=workers, processes=processes)
    train = functools.partial(
        _train,
        base=recipe.policy,
        contract=contract,
        processes=processes,
        device=device,
        board=recipe.tensorboard,
    )
    read = functools.partial(
        _read_bags,
        processes=processes,
        contract=contract,
        rate_hz=recipe.rate_hz,
        workers=workers,
        outcomes=outcomes,
        instruction=instruction,
    )
    first = out if recipe.corrections is None else out / "first"
    if not bags:
        shown = recipe.demonstrations
        if not shown.episodes:
            raise DatasetError(
                f"recipe '{recipe.name}' records no demonstrations and no bag was given",
                mend="name bags, or a folder of bags: fastvla train BAGS --out DIR",
            )
        bags = [record(first / "bags", episodes=shown.episodes, seed=shown.seed, driver=None)]
    cache = read(bags, first / "cache")
    policy, head = starting_policy(start, recipe, contract=contract, cache=cache), None
    if (poses := recipe.key_poses_first) is not None:
        seen = train(policy, cache, config=poses.training(recipe.training), out=out / "key_poses")
        policy = FastVLA.from_pretrained(seen.policy, contract=contract)
        head = seen.key_pose_head
    result = train(policy, cache, config=recipe.training, out=first, key_pose_head=head)
    if (again := recipe.corrections) is None:
        return result
    driver = Driver(policy=result.policy, camera_dropout=again.camera_dropout)
    corrected = record(out / "bags", episodes=again.episodes, seed=again.seed, driver=driver)
    if processes.first:
        take_over(first / "cache", out / "cache")
    cache = read([*bags, corrected], out / "cache")
    policy = FastVLA.from_pretrained(result.policy, contract=contract)
    second = train(
        policy,
        cache,
        config=again.training(recipe.training),
        out=out,
        key_pose_head=result.key_pose_head,
        favoured=None if again.share is None else (corrected, again.share),
    )
    if again.mixing < 1:
        if processes.first:
            _mix(second.policy, result.policy, mixing=again.mixing, contract=contract)
        processes.wait()
    return second


def _mix(folder: Path, before: Path, *, mixing: float, contract: RobotContract) -> None:
    """Draw the weights of a policy back towards those that it started from; see `Corrections`."""
    policy = FastVLA.from_pretrained(folder, contract=contract)
    old = FastVLA.from_pretrained(before, contract=contract).model.state_dict()
    weights = {name: old[name].lerp(new, mixing) for name, new in policy.model.state_dict().items()}
    policy.with_weights(weights).save_pretrained(folder)


def _record(
    out: Path,
    *,
    episodes: Mapping[str, int],
    seed: int,
    driver: Driver | None,
    contract: RobotContract,
    workers: int,
    processes: Processes,
) -> Path:
    if processes.first:
        with CountBar("episodes recorded") as bar:
            record_expert_episodes(
                out,
                episodes=episodes,
                seed=seed,
                contract=contract,
                workers=workers,
                driver=driver,
                progress=bar,
            )
    processes.wait()
    return out


def _read_bags(bags: Sequence[Path], out: Path, *, processes: Processes, **options: Any) -> Cache:
    if processes.first:
        with CountBar("bags read") as bar:
            manifest = build_cache(bags, out, progress=bar, **options)
        for line in manifest.remarks:
            print(line, file=sys.stderr)
    processes.wait()
    return open_cache(out)


def _train(
    policy: FastVLA,
    cache: Cache,
    *,
    config: TrainConfig,
    out: Path,
    base: str,
    contract: RobotContract,
    processes: Processes,
    device: torch.device,
    board: bool,
    key_pose_head: Mapping[str, Tensor] | None = None,
    favoured: tuple[Path, float] | None = None,
) -> RunResult:
    _check_instructions(policy, cache)
    dataset = StepDataset(
        cache,
        cameras=policy.config.cameras,
        chunk_size=policy.config.chunk_size,
        past_steps=len(policy.history_s),
        validation=config.validation,
    )
    if config.key_pose is not None:
        dataset.key_poses = KeyPoses(
            cache,
            frames=dataset.training_frames,
            joints=len(contract.joints),
            has_gripper=contract.gripper is not None,
            count=config.key_pose.count,
        )
        if config.key_pose.alone:
            dataset = dataset.restricted(dataset.key_poses.before_use)
    if favoured is not None:
        folder, share = favoured
        dataset.favour(cache.rows_from(folder), share=share)
    if processes.first and (warning := too_few_recordings(config, frames=len(dataset))):
        print(warning, file=sys.stderr)
    trainer = Trainer(
        policy,
        dataset=dataset,
        config=config,
        out=out,
        base=base,
        processes=processes,
        device=device,
        board=board,
        key_pose_head=key_pose_head,
    )
    if processes.first:
        if config.precision == "bf16" and not multiplies_bf16(device):
            print("this processor does not multiply bf16: training in fp32", file=sys.stderr)
        print(f"memory: about {trainer.memory.in_words()}", file=sys.stderr)
    with _ProgressBar(config.steps) as bar:
        folder = trainer.run(report=bar.update if processes.first else None)
    return RunResult(
        policy=folder,
        curve=out / "loss.csv",
        steps=config.steps,
        frames=len(dataset),
        key_pose_head=trainer.key_pose_head,
    )


def too_few_recordings(config: TrainConfig, *, frames: int) -> str:
    """What to say where a run sees its recorded steps so often that it learns them by heart."""
    times = config.steps * config.batch_size / frames
    if times <= _OFTEN:
        return ""
    return (
        f"only {frames} recorded steps: each will be seen {times:,.0f} times and learnt by heart, "
        "and what the policy could before will be lost; record more episodes, mix in some of what "
        "it must keep (docs/finetuning.md), or lower training.steps"
    )


def _check_instructions(policy: FastVLA, cache: Cache) -> None:
    """An instruction that the policy cannot read would end the run when it is first drawn."""
    for text in cache.instructions:
        try:
            policy.processor.encode([text])
        except ObservationError as error:
            source = next((e.source for e in cache.manifest.entries if text in e.instructions), "")
            raise DatasetError(f"{source}: {error.message}", mend=error.mend) from error


class _ProgressBar:
    """Loss, samples per second and the time that is left, on one line."""

    def __init__(self, steps: int) -> None:
        self._bar = tqdm(total=steps, unit="step", file=sys.stderr, dynamic_ncols=True)

    def __enter__(self) -> _ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, point: LossPoint, _: int) -> None:
        """Show one point of the loss curve."""
        values = {"loss": f"{point.loss:.4f}", "samples/s": f"{point.samples_per_s:.0f}"}
        if point.validation_loss is not None:
            values["validation"] = f"{point.validation_loss:.4f}"
        self._bar.update(point.step - self._bar.n)
        self._bar.set_postfix({**getattr(self, "_last", {}), **values})
        self._last = values
