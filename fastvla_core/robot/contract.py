"""The robot contract: one YAML file for recording, training and serving, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

CameraKind = Literal["color", "depth"]
CameraTransport = Literal["raw", "compressed", "compressed_depth"]
GripperInterface = Literal["parallel_gripper_command", "gripper_command"]
CommandInterface = Literal["joint_trajectory", "forward_position", "joint_jog", "twist"]
TwistFrame = Literal["base", "tool"]
StampSource = Literal["header", "receive"]
CameraAlignment = Literal["hold", "nearest"]
StateAlignment = Literal["hold", "linear"]

_OUTPUT_TYPES = {
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "forward_position": "std_msgs/msg/Float64MultiArray",
    "joint_jog": "control_msgs/msg/JointJog",
    "twist": "geometry_msgs/msg/TwistStamped",
}
_TRANSPORT_SUFFIX = {
    "raw": "",
    "compressed": "/compressed",
    "compressed_depth": "/compressedDepth",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSpec:
    """One camera: where its images come from and how old they may be.

    Attributes:
        topic: Of its messages. A base topic is completed as image_transport does it:
            `<base>/compressed`, `<base>/compressedDepth`.
        encoding: Of its messages; of what was compressed, where they are compressed.
        kind: What a pixel is: a colour (also a grey), or a distance.
        depth_unit_m: Metres per count of 16-bit depth; 32FC1 is in metres.
        align: Which picture stands for an instant: the newest that is not later (`hold`), or the
            closest, where one that is later may be there already (`nearest`).
        max_age_s: How far that picture may be from the instant.
        required: Without it the robot holds; an optional camera is masked when it is missing.
        policy: It is part of the observation; otherwise it is recorded and shown to people only.
    """

    name: str
    topic: str
    encoding: str
    width: int
    height: int
    transport: CameraTransport = "raw"
    kind: CameraKind = "color"
    depth_unit_m: float = 0.001
    max_age_s: float = 0.2
    align: CameraAlignment = "hold"
    required: bool = True
    policy: bool = True

    def __post_init__(self) -> None:
        suffix = _TRANSPORT_SUFFIX[self.transport]
        if self.topic and not self.topic.endswith(suffix):
            object.__setattr__(self, "topic", self.topic + suffix)

    @property
    def message_type(self) -> str:
        """What is published on `topic`."""
        name = "Image" if self.transport == "raw" else "CompressedImage"
        return f"sensor_msgs/msg/{name}"

    @property
    def base_topic(self) -> str:
        """Where its raw images would be."""
        return self.topic.removesuffix(_TRANSPORT_SUFFIX[self.transport])

    @property
    def transport_topics(self) -> tuple[str, ...]:
        """Its topic with every transport, its own first; a recording may have taken another."""
        others = (self.base_topic + suffix for suffix in _TRANSPORT_SUFFIX.values())
        return (self.topic, *(topic for topic in others if topic != self.topic))


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
    """Where measured joint positions come from.

    Attributes:
        max_age_s: How far a measurement may be from the instant that it stands for.
        names: Their names to the contract's.
        align: The newest measurement (`hold`), or a value between the two around the instant
            (`linear`); the gripper is always held.
        orientations: Four joints each that are a unit quaternion (x, y, z, w); between two of them
            lies the shortest turn (slerp).
    """

    topic: str = "joint_states"
    max_age_s: float = 0.1
    names: tuple[tuple[str, str], ...] = ()
    align: StateAlignment = "hold"
    orientations: tuple[tuple[str, str, str, str], ...] = ()


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
class TwistSpec:
    """How joint targets become the tool's velocity.

    Attributes:
        urdf: The robot's URDF file; relative to the contract's folder.
        base, tool: Links; the twist is that of the tool link's origin against the base link.
        frame: Whose axes the twist is given in, and whose name its messages carry.
        max_linear, max_angular: Limits [m/s, rad/s].
    """

    urdf: str
    base: str
    tool: str
    max_linear: float
    max_angular: float
    frame: TwistFrame = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsSpec:
    """The policy's command topic and what the guard sends on to the controller.

    Attributes:
        position_gain: How fast velocities close the distance to the set point [1/s]; only of
            `joint_jog` and `twist`.
        twist: Needed by the interface `twist`.
    """

    command: str = "command"
    interface: CommandInterface = "joint_trajectory"
    topic: str = "joint_trajectory"
    position_gain: float = 4.0
    twist: TwistSpec | None = None

    @property
    def message_type(self) -> str:
        """What the guard publishes on `topic`."""
        return _OUTPUT_TYPES[self.interface]

    @property
    def sends_velocities(self) -> bool:
        """The robot goes on moving until it is told otherwise."""
        return self.interface in ("joint_jog", "twist")


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
    def observed_cameras(self) -> tuple[CameraSpec, ...]:
        """The cameras of the observation, of both kinds, in the contract's order."""
        return tuple(camera for camera in self.cameras if camera.policy)

    @property
    def policy_cameras(self) -> tuple[CameraSpec, ...]:
        """The colour cameras that the policy sees, in the contract's order."""
        return tuple(camera for camera in self.observed_cameras if camera.kind == "color")

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state's columns: joints, then the gripper."""
        gripper = (self.gripper.name,) if self.gripper else ()
        return tuple(joint.name for joint in self.joints) + gripper

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action's columns: the same as the state's."""
        return self.state_names

    @property
    def driver_names(self) -> dict[str, str]:
        """What the robot's driver calls each joint, where the contract renames it."""
        ours = {ours: theirs for theirs, ours in self.joint_states.names}
        return {name: ours.get(name, name) for name in self.action_names}

    @property
    def orientation_columns(self) -> tuple[tuple[int, ...], ...]:
        """Columns of the state, and of the action, that are quaternions (x, y, z, w)."""
        groups = self.joint_states.orientations
        return tuple(tuple(self.state_names.index(name) for name in group) for group in groups)

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
        """SHA-256 over the content; comments do not matter, the order of the joints does.

        Keys at their default are left out, so that the hash of a contract outlives new keys.
        """
        content = {**_stated(self), "order": self.state_names}
        content["cameras"].sort(key=lambda camera: camera["name"])
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


def _stated(part: Any) -> Any:
    """The content of a dataclass as plain data, without what is at its default."""
    if isinstance(part, tuple):
        return [_stated(item) for item in part]
    if not dataclasses.is_dataclass(part):
        return part
    values = {item: getattr(part, item.name) for item in dataclasses.fields(part)}
    return {item.name: _stated(value) for item, value in values.items() if value != item.default}


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
