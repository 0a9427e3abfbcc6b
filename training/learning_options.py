"""What a recipe's `training` can say about what is learnt beside the plain loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastvla_core.errors import DatasetError
from fastvla_core.models.vision_tokens.options import (
    ALL_TOKENS,
    Pruning,
    VisionTokens,
    keep_ratios,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningTraining:
    """Training to do with fewer visual tokens.

    Attributes:
        mode: How they are pruned; "learned" trains a scorer beside the policy.
        keep: Share that is kept in the end.
        curriculum_steps: Over so many steps the share falls from all to `keep`.
        distillation: Weight of the distance from what the policy said before this training, with
            all of its visual tokens.
        sparsity: Weight of the term that keeps a learned scorer's chances near `keep`.

    Raises:
        DatasetError: a number is out of its range.
    """

    mode: Pruning = "adaptive"
    keep: float = 0.5
    curriculum_steps: int = 0
    distillation: float = 1.0
    sparsity: float = 0.1

    def __post_init__(self) -> None:
        ratios = keep_ratios(self.mode)
        if self.mode == "none" or self.keep not in ratios:
            raise DatasetError(
                f"training.pruning: mode '{self.mode}' with keep {self.keep}",
                mend=f"give a mode other than none, and keep one of {', '.join(map(str, ratios))}",
            )
        for name in ("curriculum_steps", "distillation", "sparsity"):
            if getattr(self, name) < 0:
                raise DatasetError(f"training.pruning.{name} is below 0", mend="give at least 0")

    @property
    def vision_tokens(self) -> VisionTokens:
        """How the trained policy prunes."""
        return VisionTokens(pruning=self.mode, keep=self.keep)

    def at(self, step: int) -> VisionTokens:
        """How tokens are pruned at a training step: the share only takes values with a bucket.

        A scorer is asked from the first step on: what is never used could not be trained.
        """
        done = min(1.0, (step + 1) / self.curriculum_steps) if self.curriculum_steps else 1.0
        share = 1.0 - (1.0 - self.keep) * done
        ratios = keep_ratios(self.mode)
        ratio = next((r for r in ratios if r >= share - 1e-9), None)
        if ratio is None and self.mode != "learned":
            return ALL_TOKENS
        return VisionTokens(pruning=self.mode, keep=ratio or ratios[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class InsulationTraining:
    """Knowledge insulation: the backbone learns from discrete actions, the expert from the flow.

    Attributes:
        weight: Of the discrete actions' cross-entropy; the flow's loss counts 1.
        tokens: "bins" of each action, told by a head; or "fast" tokens, written by the policy's
            language model, or by a head where it has none.
        limit: Bins and FAST's range span -limit to limit, in normalised actions.
        bins: Of each action dimension.
        action_tokenizer: Folder or Hub name of the FAST tokenizer.
        max_tokens: Longest chunk in tokens, with what stands around it; the rest is cut off.
        depth, width: Of the head; it is not part of the trained policy.

    Raises:
        DatasetError: a number is out of its range.
    """

    weight: float = 1.0
    tokens: Literal["bins", "fast"] = "bins"
    limit: float = 3.0
    bins: int = 256
    action_tokenizer: str = "physical-intelligence/fast"
    max_tokens: int = 128
    depth: int = 2
    width: int = 512

    def __post_init__(self) -> None:
        least = min(self.weight, self.limit, self.depth, self.width)
        if min(self.bins, self.max_tokens) < 2 or least <= 0:
            raise DatasetError(
                f"training.insulation: weight {self.weight:g}, {self.bins} bins up to "
                f"{self.limit:g}, {self.max_tokens} tokens, depth {self.depth}, width "
                f"{self.width} teach nothing",
                mend="give at least 2 bins and tokens, and everything else above 0",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoTraining:
    """Questions and answers about pictures, beside the recordings.

    Attributes:
        lists: JSON, JSONL or CSV files; see `training/interop/conversations.py`.
        share: Conversations per recorded sample.
        weight: Of the answers' cross-entropy; the actions' loss counts 1.

    Raises:
        DatasetError: a number is out of its range, or there is no list.
    """

    lists: tuple[str, ...]
    share: float = 0.1
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.lists or not 0 < self.share <= 1 or self.weight <= 0:
            raise DatasetError(
                f"training.conversations: {len(self.lists)} lists, share {self.share:g}, weight "
                f"{self.weight:g} teach nothing",
                mend="name a list, a share above 0 and at most 1, and a weight above 0",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPoseTraining:
    """The poses at which the gripper is next used, or the episode's last one, beside the actions.

    Attributes:
        weight: Of their mean squared error; the actions' loss counts 1.
        count: How many: two say, before anything is grasped, where it will be put, too.
        alone: Learn no action yet, only these, from the steps before the gripper's first use. What
            reads words and pictures is trained, the rest of the network stays as it is.

    Raises:
        DatasetError: the weight or the number teaches nothing.
    """

    weight: float = 1.0
    count: int = 1
    alone: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DatasetError(f"training.key_pose.count is {self.count}", mend="give at least 1")
        if self.weight <= 0:
            raise DatasetError(
                f"training.key_pose.weight is {self.weight:g}", mend="give more than 0"
            )
