"""The parameters of the policy server: names, defaults, what they mean, and their check."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from fastvla_core.engines.names import ENGINE_CHOICES, ENGINE_HELP, EngineChoice
from fastvla_core.errors import PolicyError, RosError
from fastvla_core.models.vision_tokens.options import (
    PRUNING_CHOICES,
    TOKEN_HELP,
    PruningChoice,
    VisionTokens,
    chosen_tokens,
)
from fastvla_core.runtime.merging import CHUNK_MERGES, ChunkMerge

OnBusy = Literal["reject", "preempt"]

_CHOICES = {
    "quantization": ("none", "nf4", "int8"),
    "device": ("auto", "cpu", "cuda"),
    "engine": ENGINE_CHOICES,
    "on_busy": ("reject", "preempt"),
    "chunk_merge": CHUNK_MERGES,
    "token_pruning": PRUNING_CHOICES,
}
_DECLARED: tuple[tuple[str, Any, str], ...] = (
    ("contract", "tabletop", "robot contract: a shipped name or a YAML file"),
    (
        "checkpoint",
        "nano",
        "policy: a shipped name, a folder, a Hugging Face repository, or the address of another "
        "machine (grpcs://host:port)",
    ),
    ("quantization", "nf4", "weights of the large layers: none, nf4 or int8"),
    ("device", "auto", "auto, cpu or cuda"),
    ("threads", 0, "CPU threads of the policy; 0 for one fewer than there are cores"),
    ("engine", "auto", ENGINE_HELP),
    ("autostart", True, "configure and activate at once"),
    ("on_busy", "reject", "a goal while another runs: reject it, or preempt the running one"),
    ("default_timeout_s", 60.0, "deadline of goals that give none [s]"),
    ("max_timeout_s", 3600.0, "goals that ask for a later deadline are rejected [s]"),
    ("sensor_timeout_s", 2.0, "how long to wait or hold for a silent or frozen stream [s]"),
    ("inference_timeout_s", 10.0, "how long one inference may take [s]"),
    ("load_timeout_s", 50.0, "how long loading and warming up a policy may take, at most 50 [s]"),
    ("execute_steps", 2, "action steps from one observation to the next, if inference keeps up"),
    ("chunk_merge", "auto", "how chunks follow: auto, pause, switch, ensemble, rtc, rtc_trained"),
    ("token_pruning", "stored", TOKEN_HELP["token_pruning"]),
    ("token_keep", 0.5, TOKEN_HELP["token_keep"]),
    ("camera_reuse", -1.0, TOKEN_HELP["camera_reuse"]),
    ("prefix_reuse", False, TOKEN_HELP["prefix_reuse"]),
    ("seed", 0, "fixes the sampling of each goal"),
    ("remote_credentials", "", "folder with ca.pem, token, cert.pem, key.pem for grpcs://"),
    ("remote_jpeg_quality", 0, "1 to 100 compresses images that are sent to another machine"),
)
_POSITIVE = (
    "default_timeout_s", "max_timeout_s", "sensor_timeout_s", "inference_timeout_s",
    "load_timeout_s", "execute_steps",
)  # fmt: skip
_NAMES = frozenset(name for name, _, _ in _DECLARED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerParameters:
    """The values, checked; see the table above."""

    contract: str
    checkpoint: str
    quantization: str
    device: str
    threads: int
    engine: EngineChoice
    autostart: bool
    on_busy: OnBusy
    default_timeout_s: float
    max_timeout_s: float
    sensor_timeout_s: float
    inference_timeout_s: float
    load_timeout_s: float
    execute_steps: int
    chunk_merge: ChunkMerge
    token_pruning: PruningChoice
    token_keep: float
    camera_reuse: float
    prefix_reuse: bool
    seed: int
    remote_credentials: str
    remote_jpeg_quality: int

    @property
    def vision_tokens(self) -> VisionTokens | None:
        """Which visual tokens are kept and what is reused; None as the checkpoint says.

        Raises:
            PolicyError: the values do not go together.
        """
        return chosen_tokens(
            self.token_pruning,
            keep=self.token_keep,
            camera_reuse=self.camera_reuse,
            prefix_reuse=self.prefix_reuse,
        )


def declare_parameters(node: Any) -> None:
    """Declare every parameter on a node, with its description; later changes are checked, too."""
    from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult

    for name, default, description in _DECLARED:
        # ROS refuses 60 where 60.0 is meant, with a traceback; the check below says it in words.
        descriptor = ParameterDescriptor(description=description, dynamic_typing=True)
        node.declare_parameter(name, default, descriptor)

    def on_set(changes: Sequence[Any]) -> SetParametersResult:
        new = {change.name: change.value for change in changes}
        try:
            _checked({name: new.get(name, node.get_parameter(name).value) for name in _NAMES})
        except RosError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(on_set)


def read_parameters(node: Any) -> ServerParameters:
    """The present values.

    Raises:
        RosError: a value has a wrong type, is not one of the choices, or not positive.
    """
    return _checked({name: node.get_parameter(name).value for name in _NAMES})


def _checked(given: Mapping[str, Any]) -> ServerParameters:
    values = {name: _typed(name, given[name], type(default)) for name, default, _ in _DECLARED}
    for name, choices in _CHOICES.items():
        if values[name] not in choices:
            raise RosError(
                f"policy_server: parameter {name} is {values[name]!r}",
                mend=f"set {name} to one of {', '.join(choices)}",
            )
    for name in _POSITIVE:
        if not (math.isfinite(values[name]) and values[name] > 0):
            raise RosError(
                f"policy_server: parameter {name} is {values[name]}", mend="set it above 0"
            )
    for name, limit in (("load_timeout_s", 50.0), ("default_timeout_s", values["max_timeout_s"])):
        if values[name] > limit:
            raise RosError(
                f"policy_server: parameter {name} is {values[name]}",
                mend=f"set it to at most {limit:g}",
            )
    if not 0 <= values["remote_jpeg_quality"] <= 100:
        raise RosError(
            f"policy_server: parameter remote_jpeg_quality is {values['remote_jpeg_quality']}",
            mend="set it to 1 to 100, or to 0 for images as they are",
        )
    parameters = cast("ServerParameters", ServerParameters(**values))
    try:
        _ = parameters.vision_tokens
    except PolicyError as error:
        raise RosError(f"policy_server: {error.message}", mend=error.mend) from error
    return parameters


def _typed(name: str, value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if kind is str and type(value) in (int, float):
        return str(value)
    if type(value) is not kind:
        raise RosError(
            f"policy_server: parameter {name} is {value!r}", mend=f"its type is {kind.__name__}"
        )
    return value
