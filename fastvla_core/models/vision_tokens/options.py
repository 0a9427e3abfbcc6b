"""What a policy leaves out of its images and what it computes only once; all off by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from fastvla_core.errors import PolicyError

Pruning = Literal["none", "adaptive", "learned", "uniform", "pool"]
PRUNINGS: tuple[Pruning, ...] = get_args(Pruning)
KEEP_RATIOS = (0.25, 0.375, 0.5, 0.75)
"""Shares of the visual tokens that can be kept: few, so that each shape is captured once."""
_POOLED = {0.25: (2, 2), 0.5: (1, 2)}


def keep_ratios(pruning: Pruning) -> tuple[float, ...]:
    """Shares that can be kept in this way, rising."""
    return tuple(_POOLED) if pruning == "pool" else KEEP_RATIOS


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreWeights:
    """How much each reason to keep a token counts; each score is between 0 and 1.

    Attributes:
        relevance: Likeness to a word of the instruction.
        attention: How much the previous chunk's actions looked at it.
        change: How much its part of the image has changed since the previous inference.
    """

    relevance: float = 1.0
    attention: float = 1.0
    change: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionTokens:
    """Visual token pruning and caches.

    Attributes:
        pruning: "adaptive" keeps the tokens of the highest weighted score, "learned" those that a
            trained scorer names; "uniform" keeps an even pattern and "pool" the means of
            neighbours, to compare with.
        keep: Share of the visual tokens that is kept, one of `KEEP_RATIOS`; "pool" knows 0.25
            (2 x 2) and 0.5 (pairs side by side).
        weights: Of the adaptive score.
        camera_reuse: Keep a camera's tokens while no part of its image differs from the one they
            were computed of by more than this many grey levels (mean over the part of a token);
            0 for equal images only, None for never.
        prefix_reuse: Keep what was read of the instruction, and keys and values of the prefix,
            while what they depend on is exactly the same.

    Raises:
        PolicyError: a value is out of its range.
    """

    pruning: Pruning = "none"
    keep: float = 0.5
    weights: ScoreWeights = field(default_factory=ScoreWeights)
    camera_reuse: float | None = None
    prefix_reuse: bool = False

    def __post_init__(self) -> None:
        if self.pruning not in PRUNINGS:
            raise PolicyError(
                f"visual tokens cannot be pruned by '{self.pruning}'",
                mend=f"one of {', '.join(PRUNINGS)}",
            )
        ratios = keep_ratios(self.pruning)
        if self.pruning != "none" and self.keep not in ratios:
            raise PolicyError(
                f"pruning '{self.pruning}' cannot keep {self.keep} of the visual tokens",
                mend=f"one of {', '.join(map(str, ratios))}",
            )
        weights = (self.weights.relevance, self.weights.attention, self.weights.change)
        if min(weights) < 0 or max(weights) <= 0:
            raise PolicyError(
                f"the weights of the scores are {weights}", mend="none below 0, one above 0"
            )

    @property
    def remembers(self) -> bool:
        """Whether an inference depends on, or uses, what the ones before have left behind."""
        return self.pruning == "adaptive" or self.camera_reuse is not None or self.prefix_reuse

    @property
    def active(self) -> bool:
        """Whether anything is on."""
        return self.remembers or self.pruning != "none"

    @property
    def pooled(self) -> tuple[int, int]:
        """Rows and columns of the tokens that become one."""
        return _POOLED[self.keep] if self.pruning == "pool" else (1, 1)


ALL_TOKENS = VisionTokens()
"""Nothing is left out, nothing is reused."""

PruningChoice = Literal["stored", "none", "adaptive", "learned", "uniform", "pool"]
PRUNING_CHOICES: tuple[PruningChoice, ...] = get_args(PruningChoice)
TOKEN_HELP: Mapping[str, str] = {
    "token_pruning": "which visual tokens are left out: none, adaptive, learned, uniform, pool, or "
    "stored, as the checkpoint says; setting any of these four replaces all that it says",
    "token_keep": f"share of the visual tokens that is kept: {', '.join(map(str, KEEP_RATIOS))}",
    "camera_reuse": "keep a camera's tokens until a part of its image has changed by more than "
    "this [grey levels]; 0 for equal images, -1 for never",
    "prefix_reuse": "keep what was read of the instruction, and of all together, while it is "
    "exactly the same",
}
"""What the options are called on command lines and as parameters, and their help."""


def chosen_tokens(
    pruning: str, *, keep: float, camera_reuse: float, prefix_reuse: bool
) -> VisionTokens | None:
    """Options from command lines and parameters; None where nothing but "stored" is given.

    Raises:
        PolicyError: a value is out of its range.
    """
    if pruning == "stored" and camera_reuse < 0 and not prefix_reuse:
        return None
    return VisionTokens(
        # What is no way of pruning is refused there.
        pruning="none" if pruning == "stored" else cast("Pruning", pruning),
        keep=keep,
        camera_reuse=None if camera_reuse < 0 else camera_reuse,
        prefix_reuse=prefix_reuse,
    )


def use_tokens(model: Any, tokens: VisionTokens, *, kind: str) -> None:
    """Let a network treat its visual tokens so.

    Args:
        kind: Type of the policy, for errors.
    Raises:
        PolicyError: it cannot.
    """
    known = getattr(model, "prunings", ())
    if tokens.active and not known:
        raise PolicyError(
            f"this policy ({kind}) can neither prune its visual tokens nor reuse them",
            mend="leave the options of the visual tokens out",
        )
    if tokens.pruning != "none" and tokens.pruning not in known:
        raise PolicyError(
            f"this policy ({kind}) cannot prune its visual tokens by '{tokens.pruning}'; it can "
            f"by: {', '.join(known)}",
            mend="choose another way, or train a scorer: `training.pruning` in the recipe",
        )
    if known:
        model.vision_tokens = tokens
