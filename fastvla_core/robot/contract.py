"""The robot contract: one YAML file for recording, training and serving, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

RAW_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC1", "8UC3", "mono16", "16UC1")

CameraTransport = Literal["raw", "compressed"]
GripperInterface = Literal["parallel_gripper_command", "gripper_command"]
CommandInterface = Literal["joint_trajectory", "forward_position"]
StampSource = Literal["header", "receive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSpec:
    """One camera: where its images come from and how old they may be.

    Attributes:
        required: Without it the robot holds; an optional camera is masked when it is missing.
        policy: The policy sees it; otherwise it is recorded and shown to people only.
    """

    name: str
    topic: str
    encoding: str
    width: int
    height: int
    transport: CameraTransport = "raw"
    max_age_s: float = 0.2
    required: bool = True
    policy: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class JointSpec:
    """One joint and its limits: rad, rad/s, rad/s^2 (m for prismatic joints)."""

    name: str
    lower: float
    upper: float
    max_velocity: float
    max_acceleration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperSpec:
    """A parallel gripper, by the opening of one finger [m]; its joint is in `joint_states`."""

    name: str
    lower: float
    upper: float
    max_velocity: float
    max_effort: float
    action: str
    interface: GripperInterface = "parallel_gripper_command"
    dead_band: float = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class JointStatesSpec:
    """Where measured joint positions come from; `names` maps their names to the contract's."""

    topic: str = "joint_states"
    max_age_s: float = 0.1
    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSpec:
    """How streams are brought together: largest camera skew, and whose clock stamps them."""

    max_skew_s: float = 0.05
    stamp: StampSource = "header"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogSpec:
    """Without a command for `timeout_s` the guard holds the measured position."""

    timeout_s: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsSpec:
    """The policy's command topic and what the guard sends on to the controller."""

    command: str = "command"
    interface: CommandInterface = "joint_trajectory"
    topic: str = "joint_trajectory"


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotContract:
    """Everything that recording, training and serving must agree on about one robot."""

    name: str
    cameras: tuple[CameraSpec, ...]
    joints: tuple[JointSpec, ...]
    gripper: GripperSpec | None
    control_rate_hz: float
    frame_id: str
    joint_states: JointStatesSpec
    sync: SyncSpec
    watchdog: WatchdogSpec
    outputs: OutputsSpec

    @property
    def policy_cameras(self) -> tuple[CameraSpec, ...]:
        """The cameras that the policy sees, in the contract's order."""
        return tuple(camera for camera in self.cameras if camera.policy)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state's columns: joints, then the gripper."""
        gripper = (self.gripper.name,) if self.gripper else ()
        return tuple(joint.name for joint in self.joints) + gripper

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action's columns: the same as the state's."""
        return self.state_names

    def camera(self, name: str) -> CameraSpec:
        """The camera of that name; KeyError when there is none."""
        return next(c for c in self.cameras if c.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `parse_contract` reads back; what bags and checkpoints carry."""
        data = dataclasses.asdict(self)
        data["cameras"] = {c.pop("name"): c for c in data["cameras"]}
        data["joints"] = {j.pop("name"): j for j in data["joints"]}
        data["joint_states"]["names"] = dict(data["joint_states"]["names"])
        return data

    def hash(self) -> str:
        """SHA-256 over the content; comments do not matter, the order of the joints does."""
        content = {**self.to_dict(), "order": self.state_names}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def contract_differences(ours: RobotContract, theirs: RobotContract) -> list[str]:
    """What differs, one line per key, in words a user can act on; empty when nothing does."""
    left, right = _flatten(ours.to_dict()), _flatten(theirs.to_dict())
    lines = []
    for key in sorted(left.keys() | right.keys()):
        a, b = left.get(key, "(absent)"), right.get(key, "(absent)")
        if a != b:
            lines.append(f"{key}: {a!r} here, {b!r} there")
    if list(ours.state_names) != list(theirs.state_names):
        lines.append(
            f"joint order: {list(ours.state_names)} here, {list(theirs.state_names)} there"
        )
    return lines


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
