"""Sizes and conventions of a flow policy; read from and written to LeRobot's config.json."""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from fastvla_core.errors import CheckpointError, PolicyError
from fastvla_core.layers.attention import AttentionShape
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.plain_data import PlainDataError, convert
from fastvla_core.types import Conditioning

IMAGE_PREFIX = "observation.images."
STATE_KEY = "observation.state"
ACTION_KEY = "action"
ConfigT = TypeVar("ConfigT", bound="RobotPolicyConfig")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerSize:
    """Width, depth and feed-forward width of one transformer."""

    width: int
    depth: int
    mlp_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotPolicyConfig:
    """What FastVLA's own policies have in common: whose columns, which cameras, which chunks.

    Attributes:
        cameras: Names of the cameras, in the order of the prefix.
        optional_cameras: Those that may be missing; without any other, inference is refused.
        image_resolution: Height and width that every image is resized to.
        state_names, action_names: Columns of state and action.
        chunk_size: Action steps per inference.
        n_action_steps: Steps that are executed before the next inference.
        action_dt_s: Time between two action steps.
        max_prefix_steps: Largest number of a chunk's first steps that training gave as they are, so
            that inference can be given those that are executed meanwhile; 0 when it gave none.
        use_relative_actions: Predict targets minus the present state, except for
            `relative_exclude_joints`.
        robot_contract, robot_contract_hash: The contract that the policy was trained for, as
            plain data, and its hash.
    """

    policy_type: ClassVar[str]

    cameras: tuple[str, ...]
    optional_cameras: tuple[str, ...] = ()
    image_resolution: tuple[int, int]
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    chunk_size: int = 8
    n_action_steps: int = 2
    action_dt_s: float = 0.1
    max_prefix_steps: int = 0
    use_relative_actions: bool = True
    relative_exclude_joints: tuple[str, ...] = ("gripper",)
    robot_contract: Mapping[str, Any] | None = None
    robot_contract_hash: str | None = None

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Action steps and action dimensions."""
        return self.chunk_size, len(self.action_names)

    @property
    def relative_joints(self) -> tuple[str, ...]:
        """Actions that are predicted relative to the state of the same name."""
        if not self.use_relative_actions:
            return ()
        return tuple(n for n in self.action_names if n not in self.relative_exclude_joints)

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Features of the normaliser, in LeRobot's words."""
        height, width = self.image_resolution
        images = {
            IMAGE_PREFIX + name: {"type": "VISUAL", "shape": [3, height, width]}
            for name in self.cameras
        }
        state = {"type": "STATE", "shape": [len(self.state_names)]}
        action = {"type": "ACTION", "shape": [len(self.action_names)]}
        return {**images, STATE_KEY: state, ACTION_KEY: action}

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, in LeRobot's layout."""
        own = dataclasses.asdict(self)
        own.pop("cameras")
        features = self.features
        action = features.pop(ACTION_KEY)
        return {
            "type": self.policy_type,
            "n_obs_steps": 1,
            "input_features": features,
            "output_features": {ACTION_KEY: action},
            "normalization_mapping": NORMALIZATION,
            **own,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowVLAConfig(RobotPolicyConfig):
    """Everything that fixes a flow policy except its weights and statistics.

    Attributes:
        num_inference_steps: Euler steps from noise to actions.
        flow_samples_per_prefix: (time, noise) pairs per training sample.
        vision: Options of `VisionTower`.
        image_points: Learned features per camera whose places, with words and state, tell what a
            motion leads to (`Pointer`); 0 for none.
        text: Text encoder; its width is the prefix's.
        prefix, expert: The two transformers; their depth is the same.
        attention: Heads of text encoder, prefix and expert.
        vision_tokens: Which visual tokens are kept and what is reused, unless loading says more.
    """

    policy_type: ClassVar[str] = "fastvla_flow"

    num_inference_steps: int = 5
    flow_samples_per_prefix: int = 4
    min_period: float = 4e-3
    max_period: float = 4.0
    vocab_size: int = 512
    tokenizer_max_length: int = 24
    vision: Mapping[str, Any]
    image_points: int = 0
    text: TransformerSize
    prefix: TransformerSize
    expert: TransformerSize
    attention: AttentionShape
    vision_tokens: VisionTokens = field(default_factory=VisionTokens)

    def __post_init__(self) -> None:
        for what, mend in itertools.chain(contradictions(self), _size_contradictions(self)):
            raise CheckpointError(f"config.json: {what}", mend=mend)

    @property
    def conditionings(self) -> tuple[Conditioning, ...]:
        """How a chunk of this policy can be made to agree with a prefix."""
        return ("inpaint", "trained") if self.max_prefix_steps else ("inpaint",)


NORMALIZATION = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}


def config_from_dict(data: Mapping[str, Any], *, source: str = "config.json") -> FlowVLAConfig:
    """Read what `FlowVLAConfig.to_dict` wrote; see `read_config`."""
    return read_config(FlowVLAConfig, data, source=source)


def read_config(
    kind: type[ConfigT], data: Mapping[str, Any], *, source: str, **given: Any
) -> ConfigT:
    """Read what the `to_dict` of a config wrote; keys of other tools are left alone.

    Args:
        given: Fields that are not in the file.
    Raises:
        CheckpointError: a key is missing or has a wrong value; names `source` and the key.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = dict(given)
    try:
        features = convert(data["input_features"], Mapping[str, Any], where="input_features")
        names = [name for name in features if name.startswith(IMAGE_PREFIX)]
        values["cameras"] = tuple(name.removeprefix(IMAGE_PREFIX) for name in names)
        for item in dataclasses.fields(kind):
            name = item.name
            if name in values or (name not in data and has_default(item)):
                continue
            values[name] = convert(data[name], hints[name], where=name)
    except KeyError as error:
        raise CheckpointError(
            f"{source}: the key {error} is missing", mend="restore it, or save the policy again"
        ) from error
    except PlainDataError as error:
        raise CheckpointError(
            f"{source}: {error}", mend="correct the value, or save the policy again"
        ) from error
    except PolicyError as error:
        raise CheckpointError(f"{source}: {error.message}", mend=error.mend) from error
    if data.get("normalization_mapping", NORMALIZATION) != NORMALIZATION:
        raise CheckpointError(
            f"{source}: normalization_mapping is {data['normalization_mapping']}",
            mend=f"this policy type knows {NORMALIZATION}",
        )
    return kind(**values)


def has_default(item: dataclasses.Field[Any]) -> bool:
    """Whether a field of a dataclass may be left out."""
    missing = dataclasses.MISSING
    return item.default is not missing or item.default_factory is not missing


def contradictions(config: RobotPolicyConfig) -> Iterator[tuple[str, str]]:
    """What no policy can be built from, and the mend."""
    for name, value in _numbers(config):
        free = name in ("max_prefix_steps", "image_points") or name.startswith("vision_tokens.")
        if value <= 0 and not free:
            yield f"'{name}' is {value}", "give a number above 0"
    if not 0 <= config.max_prefix_steps < config.chunk_size:
        yield (
            f"'max_prefix_steps' is {config.max_prefix_steps} of {config.chunk_size} steps",
            "give at least 0, and leave a step of the chunk to be inferred",
        )
    if not config.cameras:
        yield "there is no camera", "add an observation.images.* feature"
    if not set(config.optional_cameras) <= set(config.cameras):
        yield "an optional camera is not a camera", "correct `optional_cameras`"
    if not set(config.relative_joints) <= set(config.state_names):
        yield (
            "a relative action has no state of its name",
            "add it to `relative_exclude_joints`",
        )
    if config.n_action_steps > config.chunk_size:
        yield (
            "n_action_steps is larger than chunk_size",
            "execute at most the steps that one inference gives",
        )


def _size_contradictions(config: FlowVLAConfig) -> Iterator[tuple[str, str]]:
    if not isinstance(config.vision.get("type"), str):
        yield "vision.type is missing", "name a vision stem that `fastvla models list` shows"
    if config.image_points < 0:
        yield f"'image_points' is {config.image_points}", "give 0 for none, or a number above"
    if config.prefix.depth != config.expert.depth:
        yield (
            "prefix and expert differ in depth",
            "each expert layer reads the prefix layer beside it: make the depths equal",
        )
    if config.text.width != config.prefix.width:
        yield (
            "text and prefix differ in width",
            "the text encoder's tokens enter the prefix: make the widths equal",
        )
    if config.attention.heads % config.attention.kv_heads:
        yield "attention.heads is not a multiple of attention.kv_heads", "change one of the two"


def _numbers(part: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of the config by its dotted name; all of them are sizes, counts or periods."""
    for item in dataclasses.fields(part):
        value: Any = getattr(part, item.name)
        name = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{name}.")
        numbers: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
        yield from ((name, number) for number in numbers if type(number) in (int, float))
