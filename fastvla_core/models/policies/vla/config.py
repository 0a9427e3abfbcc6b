"""Which backbone, which fusion, which head; read from and written to LeRobot's config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from fastvla_core.errors import CheckpointError
from fastvla_core.models.backbones.fusion import CrossFusionOptions
from fastvla_core.models.heads.interface import ActionHead
from fastvla_core.models.policies.flow_vla.config import (
    RobotPolicyConfig,
    contradictions,
    read_config,
)
from fastvla_core.models.registry import ACTION_HEADS
from fastvla_core.plain_data import PlainDataError, fill
from fastvla_core.types import Conditioning

BACKBONE = "backbone"
FAST_TOKENIZER = "fast_tokenizer"
Part = Literal["vision", "projector", "language", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VLAConfig(RobotPolicyConfig):
    """Everything that fixes a composed policy except its weights and statistics.

    Attributes:
        backbone: Registered name, folder or Hub name of the vision-language model that a new
            policy starts with; a saved policy has it in `backbone/`.
        head: "type", a name of `ACTION_HEADS`, and the options of that head.
        auxiliary_head: A second head that is trained beside the first and never asked for
            actions; None for none.
        fusion: "type": "tokens" for the backbone's own prompt of image tokens and words, or
            "cross_attention" with the options of `CrossFusion`.
        knowledge_insulation: Stop the gradient of `head` in front of backbone and fusion. They
            learn from `auxiliary_head` alone, or not at all.
        frozen: Parts of the backbone that are not trained.
        folder: The checkpoint that this was read from; not in the file.
        local_action_tokenizer: Folder that takes the place of the one that a head names; not in
            the file.
    """

    policy_type: ClassVar[str] = "fastvla_vla"

    backbone: str
    head: Mapping[str, Any]
    auxiliary_head: Mapping[str, Any] | None = None
    fusion: Mapping[str, Any] = field(default_factory=lambda: {"type": "tokens"})
    knowledge_insulation: bool = False
    frozen: tuple[Part, ...] = ()
    folder: Path | None = field(default=None, compare=False)
    local_action_tokenizer: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for what, mend in _all_contradictions(self):
            raise CheckpointError(f"config.json: {what}", mend=mend)

    @property
    def conditionings(self) -> tuple[Conditioning, ...]:
        """How a chunk of this policy can be made to agree with a prefix."""
        if not _head_class(self.head, "head").is_flow:
            return ()
        return ("inpaint", "trained") if self.max_prefix_steps else ("inpaint",)

    @property
    def flow_steps(self) -> int | None:
        """Euler steps from noise to actions, where the head is a flow."""
        return getattr(self.head_options, "inference_steps", None)

    @property
    def parts(self) -> dict[str, str]:
        """What it is put together from, in words."""
        frozen = ", ".join(self.frozen)
        return {
            "backbone": self.backbone + (f" (frozen: {frozen})" if frozen else ""),
            "fusion": str(self.fusion["type"]),
            "head": str(self.head["type"]),
            **({"auxiliary head": str(self.auxiliary_head["type"])} if self.auxiliary_head else {}),
        }

    @property
    def action_tokenizer(self) -> str | None:
        """Name of the FAST tokenizer, where a head has one."""
        heads = (self.head, self.auxiliary_head or {})
        return next((str(h["action_tokenizer"]) for h in heads if "action_tokenizer" in h), None)

    @property
    def head_options(self) -> Any:
        """The options of the head, typed."""
        return head_options(self.head, "head")

    @property
    def fusion_options(self) -> CrossFusionOptions | None:
        """Options of the trained cross-attention; None for the backbone's own fusion."""
        kind, options = _typed(self.fusion, "fusion")
        if kind == "tokens" and not options:
            return None
        if kind != "cross_attention":
            known = "tokens (which has no options), cross_attention"
            raise CheckpointError(
                f"config.json: there is no fusion {dict(self.fusion)}", mend=f"known: {known}"
            )
        return _filled(CrossFusionOptions, options, "fusion")

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, in LeRobot's layout."""
        # The zero-argument form does not find the class that slots made anew.
        data = RobotPolicyConfig.to_dict(self)
        for name in ("folder", "local_action_tokenizer"):
            data.pop(name)
        return data


def read_vla_config(
    data: Mapping[str, Any], *, folder: Path, action_tokenizer: Path | None = None
) -> VLAConfig:
    """Read what `VLAConfig.to_dict` wrote.

    Args:
        action_tokenizer: Takes the place of the folder that a head names.
    Raises:
        CheckpointError: a key is missing or wrong, or values contradict each other.
    """
    return read_config(
        VLAConfig,
        data,
        source=str(folder / "config.json"),
        folder=folder,
        local_action_tokenizer=action_tokenizer,
    )


def head_options(data: Mapping[str, Any], where: str) -> Any:
    """The typed options of a head.

    Raises:
        CheckpointError: there is no such head, or an option is unknown or has a wrong value.
    """
    _, options = _typed(data, where)
    return _filled(_head_class(data, where).options_type, options, where)


def _head_class(data: Mapping[str, Any], where: str) -> type[ActionHead]:
    kind, _ = _typed(data, where)
    return ACTION_HEADS.load(kind)


def _typed(data: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    options = dict(data)
    kind = options.pop("type", None)
    if not isinstance(kind, str):
        raise CheckpointError(f"config.json: '{where}.type' is missing", mend="name one")
    return kind, options


def _filled(kind: type[Any], options: Mapping[str, Any], where: str) -> Any:
    try:
        return fill(kind, options, where=where)
    except PlainDataError as error:
        raise CheckpointError(f"config.json: {error}", mend="correct the value") from error


def _all_contradictions(config: VLAConfig) -> Iterator[tuple[str, str]]:
    yield from contradictions(config)
    # Each of these raises where an option cannot be.
    _ = config.head_options, config.fusion_options
    if config.auxiliary_head is not None:
        head_options(config.auxiliary_head, "auxiliary_head")
        if config.head["type"] == config.auxiliary_head["type"] == "fast":
            yield "head and auxiliary head are both 'fast'", "use another one for one of them"
    if config.max_prefix_steps and not config.conditionings:
        yield (
            f"'max_prefix_steps' is {config.max_prefix_steps}, and the head '{config.head['type']}'"
            " cannot be given the first steps of a chunk",
            "set it to 0, or use the head 'flow'",
        )
    if config.auxiliary_head is not None or not config.knowledge_insulation:
        return
    if config.fusion_options is not None:
        yield (
            "'knowledge_insulation' leaves nothing to train the fusion by",
            "add an `auxiliary_head`, or use the fusion 'tokens'",
        )
    if "all" not in config.frozen:
        yield (
            "'knowledge_insulation' leaves nothing to train the backbone by",
            'add an `auxiliary_head`, or set `frozen: ["all"]`',
        )
