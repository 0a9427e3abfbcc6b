"""Recipes: every number of a training run in one YAML file, parsed into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import yaml

from fastvla_core.errors import DatasetError, SimError
from fastvla_core.models.lora import LoraConfig
from fastvla_core.plain_data import PlainDataError, fill
from fastvla_core.resources import file_or_shipped
from fastvla_core.sim.catalogue import contract_name
from training.augmentation import Augmentation
from training.camera_dropout import CameraDropout
from training.learning_options import (
    CoTraining,
    InsulationTraining,
    KeyPoseTraining,
    PruningTraining,
)

Optimizer: TypeAlias = Literal["adamw", "adamw_8bit"]
Activations: TypeAlias = Literal["keep", "recompute", "offload"]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
Parallel: TypeAlias = Literal["ddp", "fsdp", "deepspeed"]

# Keys of DeepSpeed's configuration, and where a recipe says the same.
_DECIDED_ELSEWHERE = {
    "train_batch_size": "`training.batch_size`",
    "train_micro_batch_size_per_gpu": "`training.batch_size` and `training.accumulate`",
    "gradient_accumulation_steps": "`training.accumulate`",
    "gradient_clipping": "`training.gradient_clip`",
    "optimizer": "`training.optimizer` and what it takes",
    "scheduler": "`training.learning_rate` and what it takes",
    "fp16": "`training.precision`",
    "bf16": "`training.precision`",
    "torch_autocast": "`training.precision`",
    "zero_allow_untested_optimizer": "`training.optimizer`",
    "zero_force_ds_cpu_optimizer": "`training.optimizer`",
}

# Smallest and largest value of the numbers of a training run; what is not named is at least 0.
_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, math.inf),
    "batch_size": (1, math.inf),
    "accumulate": (1, math.inf),
    "checkpoint_every": (1, math.inf),
    "beta1": (0, 0.99999),
    "beta2": (0, 0.99999),
    "ema_decay": (0, 0.999999),
    "camera_dropout": (0, 1),
    "validation": (0, 0.9),
    "seed": (0, 2**31),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations:
    """What the scripted expert records before training; no bags are needed then.

    Attributes:
        episodes: Episodes per task.
        seed: First scene seed; evaluation seeds must lie elsewhere.
    """

    episodes: Mapping[str, int] = field(default_factory=dict)
    seed: int = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPosesFirst:
    """What comes before any action: where the words point in the pictures (`key_pose.alone`).

    Attributes:
        steps: Training steps; one costs a third of a whole one.
        learning_rate: Of those steps.
        camera_dropout: Of those steps: a picture that is hidden needs no time.
    """

    steps: int
    learning_rate: float = 1e-3
    camera_dropout: CameraDropout = 0.1

    def training(self, after: TrainConfig) -> TrainConfig:
        """The training of these steps: as what comes after them where nothing else is said.

        Raises:
            DatasetError: no key pose is learnt after them, or no process has all of the weights.
        """
        if after.key_pose is None:
            raise DatasetError(
                "key_poses_first, but no `training.key_pose`: what tells them would be lost",
                mend="set `key_pose: {count: 2}`, say, in `training` too",
            )
        if after.parallel != "ddp":
            raise DatasetError(
                f"key_poses_first does not go with `parallel: {after.parallel}`",
                mend="set `parallel: ddp`: the policies that learn so are small",
            )
        return dataclasses.replace(
            after,
            steps=self.steps,
            learning_rate=self.learning_rate,
            camera_dropout=self.camera_dropout,
            key_pose=dataclasses.replace(after.key_pose, alone=True),
            closed_loop=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """A second round: the trained policy drives, the expert takes over, training goes on.

    Attributes:
        episodes: Episodes per task.
        steps: Further training steps, on all recordings.
        learning_rate: Of those steps.
        camera_dropout: Of those steps, and of the episodes that the policy drives.
        share: Of the samples of those steps that come from these episodes; None for as many as
            they are among all recordings.
        mixing: How much of the second round's weights the policy takes; the rest stays as the first
            round left it, so that what it was sure of is not unlearnt. Source: weight-space
            ensembles, arXiv:2109.01903.

    Raises:
        DatasetError: the share is not between 0 and 1, or `mixing` not above 0 and at most 1.
    """

    episodes: Mapping[str, int]
    seed: int
    steps: int
    learning_rate: float = 3e-4
    camera_dropout: CameraDropout = 0.1
    share: float | None = None
    mixing: float = 1.0

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share < 1:
            raise DatasetError(
                f"corrections.share is {self.share:g}", mend="give more than 0 and less than 1"
            )
        if not 0 < self.mixing <= 1:
            raise DatasetError(
                f"corrections.mixing is {self.mixing:g}", mend="give more than 0 and at most 1"
            )

    def training(self, first: TrainConfig) -> TrainConfig:
        """The second round's training: as the first one's where nothing else is said."""
        return dataclasses.replace(
            first,
            steps=self.steps,
            learning_rate=self.learning_rate,
            camera_dropout=self.camera_dropout,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoopConfig:
    """Closed-loop evaluation of checkpoints in the simulator, while training goes on.

    Attributes:
        every: Steps from one evaluation to the next; a multiple of `checkpoint_every`.
        tasks: The simulator's tasks.
        seeds: First scene seed, and the one after the last, of each task.

    Raises:
        DatasetError: nothing would be evaluated.
    """

    every: int
    tasks: tuple[str, ...]
    seeds: tuple[int, int] = (9_000_000, 9_000_020)

    def __post_init__(self) -> None:
        first, last = self.seeds
        if self.every < 1 or not self.tasks or not 0 <= first < last:
            raise DatasetError(
                f"training.closed_loop: every {self.every}, tasks {list(self.tasks)}, seeds "
                f"{first}:{last} evaluate nothing",
                mend="give every >= 1, at least one task, and FIRST < LAST",
            )
        for task in self.tasks:
            _check_task(task, "training.closed_loop.tasks")


def _zero_2() -> dict[str, Any]:
    # Its own buckets are of 2 GB, however small the network is.
    bucket = 50_000_000
    sizes = {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    return {"zero_optimization": {"stage": 2, **sizes}}


def _check_deepspeed(config: Mapping[str, Any], precision: Precision) -> None:
    decided = [key for key in config if key in _DECIDED_ELSEWHERE]
    if decided:
        raise DatasetError(
            f"training.deepspeed.{decided[0]}: the recipe decides this",
            mend=f"leave it out, and set {_DECIDED_ELSEWHERE[decided[0]]} in the recipe",
        )
    zero = config.get("zero_optimization")
    stage = zero.get("stage", 0) if isinstance(zero, Mapping) else 0
    if stage not in (1, 2):
        raise DatasetError(
            f"training.deepspeed.zero_optimization.stage is {stage!r}",
            mend="set 1 or 2; to keep weights in parts, too, `parallel: fsdp`, and to keep "
            "everything, `parallel: ddp`",
        )
    if precision == "fp16":
        raise DatasetError(
            "training.precision is fp16, which does not go with `parallel: deepspeed`",
            mend="set `precision: bf16`, or `parallel: fsdp`",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides the course of training.

    Attributes:
        ema_decay: Decay of the averaged weights that are saved; 0 saves the raw ones.
        camera_dropout: Chance per sample that one camera is hidden, or the chance of each by name.
        max_prefix_steps: Up to so many first steps of an action chunk, a number drawn per sample,
            are given as they are, so that chunks can be merged by "rtc_trained"; 0 for none.
        reword: Draw another of the simulator's training sentences for every sample; for recordings
            of its tasks only, other sentences stay as they are.
        pruning: Train to do with fewer visual tokens; None for all of them.
        insulation: Keep the flow's gradient out of the backbone, which learns from discrete
            actions; None lets the flow's gradient through.
        conversations: Lists of pictures with questions and answers for the language model; None for
            none.
        key_pose: Learn where the hand goes next, too; None for the actions alone.
        precision: bf16 and fp16 run the network in autocast, the weights stay fp32. bf16 only where
            the processor multiplies it; fp16 only on a GPU, with a scaled loss.
        batch_size: Samples per step, of all processes together.
        accumulate: Parts that a process does its share of a batch in, one after the other.
        optimizer: AdamW with its states in float32, or in 8 bits.
        activations: What the backward pass needs is kept, computed again per layer, or kept on the
            host.
        parallel: What several processes share: "ddp" the batch, "fsdp" also weights, gradients and
            the optimiser's states, of which each then keeps its part, "deepspeed" what its stage of
            ZeRO says.
        deepspeed: DeepSpeed's own configuration, but for what follows from the rest of this.
        lora: Train adapters instead of the weights.
        closed_loop: Judge checkpoints in the simulator; the best is kept as `best`.
        augmentation: How pictures are changed while training.

    Raises:
        DatasetError: a number is out of its range, or two choices do not go together.
    """

    steps: int
    batch_size: int = 64
    accumulate: int = 1
    optimizer: Optimizer = "adamw"
    activations: Activations = "keep"
    parallel: Parallel = "ddp"
    deepspeed: Mapping[str, Any] = field(default_factory=_zero_2)
    lora: LoraConfig | None = None
    closed_loop: ClosedLoopConfig | None = None
    learning_rate: float = 1e-3
    final_learning_rate: float = 2e-5
    warmup_steps: int = 100
    weight_decay: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.98
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    camera_dropout: CameraDropout = 0.1
    max_prefix_steps: int = 0
    reword: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)
    pruning: PruningTraining | None = None
    insulation: InsulationTraining | None = None
    conversations: CoTraining | None = None
    key_pose: KeyPoseTraining | None = None
    precision: Precision = "bf16"
    seed: int = 0
    validation: float = 0.02
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        if self.batch_size % self.accumulate:
            raise DatasetError(
                f"training.batch_size {self.batch_size} cannot be done in {self.accumulate} parts",
                mend="make `batch_size` a multiple of `accumulate`",
            )
        kinds = ("pruning", "insulation", "conversations", "key_pose")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) > 1:
            raise DatasetError(
                f"training has both {' and '.join(given)}", mend="do one after the other"
            )
        if self.parallel != "ddp" and self.optimizer == "adamw_8bit":
            raise DatasetError(
                "training.optimizer is adamw_8bit, which cannot keep its states in parts "
                f"(`parallel: {self.parallel}`)",
                mend="set `optimizer: adamw`, of whose states each process keeps its part, or "
                "`parallel: ddp`",
            )
        if self.parallel == "deepspeed":
            _check_deepspeed(self.deepspeed, self.precision)
        if self.closed_loop and self.closed_loop.every % self.checkpoint_every:
            raise DatasetError(
                f"training.closed_loop.every {self.closed_loop.every} falls between checkpoints",
                mend=f"make it a multiple of `checkpoint_every` ({self.checkpoint_every})",
            )
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            low, high = _RANGES.get(item.name, (0, math.inf))
            if isinstance(value, (int, float)) and not low <= value <= high:
                raise DatasetError(
                    f"training.{item.name} is {value}",
                    mend=f"give at least {low}" + (f" and at most {high}" if high < 1e9 else ""),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalEvaluation:
    """Closed loop with the trained policy, on every task that was demonstrated.

    Attributes:
        seeds: First scene seed, and the one after the last, of each task.
    """

    seeds: tuple[int, int] = (10_000_000, 10_000_020)

    def __post_init__(self) -> None:
        if not 0 <= self.seeds[0] < self.seeds[1]:
            raise DatasetError(
                f"evaluation.seeds: {self.seeds[0]}:{self.seeds[1]} name no scene",
                mend="give [FIRST, LAST] with 0 <= FIRST < LAST",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One run from a robot contract to a policy.

    Attributes:
        policy: A checkpoint or shipped name to start from, or a preset of `models` for a new one.
        new: Whether `policy` names a preset whose weights are drawn anew.
        policy_options: Fields of a new policy's config that differ from the preset's.
        rate_hz: Steps per second that recordings are cut into; the policy acts at that rate.
        gpu_gb: Memory of the GPU that the numbers are chosen for; 0 for any machine.
        tensorboard: Write the curves for TensorBoard too.
        key_poses_first: What a new policy learns before it learns to act; None for nothing.
        evaluation: What the run ends with; None for the policy alone.

    Raises:
        DatasetError: the rate is out of its range, or there are options for a policy that exists.
    """

    name: str
    contract: str
    policy: str
    new: bool
    rate_hz: float
    training: TrainConfig
    gpu_gb: float = 0.0
    tensorboard: bool = False
    policy_options: Mapping[str, Any] = field(default_factory=dict)
    demonstrations: Demonstrations = field(default_factory=Demonstrations)
    key_poses_first: KeyPosesFirst | None = None
    corrections: Corrections | None = None
    evaluation: FinalEvaluation | None = None

    def __post_init__(self) -> None:
        if self.policy_options and not self.new:
            raise DatasetError(
                f"recipe '{self.name}' has policy_options for {self.policy}, which has a config "
                "of its own",
                mend="set `new: true` and name a preset, or leave the options out",
            )
        if self.gpu_gb < 0:
            raise DatasetError(f"gpu_gb is {self.gpu_gb}", mend="give the GPU's memory, or 0")
        if self.key_poses_first is not None:
            self.key_poses_first.training(self.training)
        for task in (*self.demonstrations.episodes, *self.corrected):
            _check_task(task, "episodes")
        if not 0 < self.rate_hz <= 1000:
            raise DatasetError(f"rate_hz is {self.rate_hz}", mend="give more than 0, at most 1000")
        pruning = self.training.pruning
        if self.new and pruning is not None and pruning.distillation > 0:
            raise DatasetError(
                "training.pruning.distillation: a new policy has nothing to say yet",
                mend="set it to 0, or start from a trained policy (`new: false`)",
            )

    @property
    def corrected(self) -> Mapping[str, int]:
        """Episodes per task of the corrections, if there are any."""
        return self.corrections.episodes if self.corrections else {}

    def for_tasks(self, tasks: Sequence[str]) -> Recipe:
        """The same recipe for other tasks: each gets as many episodes as the one with most.

        Raises:
            DatasetError: the recipe demonstrates nothing.
        """
        if not self.demonstrations.episodes:
            raise DatasetError(
                f"recipe '{self.name}' records no demonstrations, of whatever task",
                mend="give one that does: --recipe metaworld",
            )
        shown = dict.fromkeys(tasks, max(self.demonstrations.episodes.values()))
        again = self.corrections
        if again is not None:
            most = max(again.episodes.values())
            again = dataclasses.replace(again, episodes=dict.fromkeys(tasks, most))
        return dataclasses.replace(
            self,
            demonstrations=dataclasses.replace(self.demonstrations, episodes=shown),
            corrections=again,
        )


def _check_task(task: str, where: str) -> None:
    try:
        contract_name(task)
    except SimError as error:
        raise DatasetError(f"{where}: {error.message}", mend=error.mend) from error


def load_recipe(path_or_name: str) -> Recipe:
    """Load FILE.yaml, or a shipped recipe by name.

    Raises:
        DatasetError: the file is missing, or has an unknown key or a value that cannot be.
    """
    path = file_or_shipped(path_or_name, folder="config/recipes", what="recipe", error=DatasetError)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}", mend="check the file") from error
    try:
        return fill(Recipe, data)
    except PlainDataError as error:
        raise DatasetError(f"{path}: {error}", mend="compare it with config/recipes") from error
    except DatasetError as error:
        raise DatasetError(f"{path}: {error.message}", mend=error.mend) from error
