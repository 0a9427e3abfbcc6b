"""Quality of service profiles, with rclpy's names."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any

from fastvla_ros.embedded.rcl.duration import Duration

# Not said, so the middleware's default holds: never, for a deadline or a lifespan.
UNSPECIFIED = Duration()


class InvalidQoSProfileException(Exception):  # noqa: N818 (rclpy's name)
    """A profile whose parts do not fit."""


class QoSPolicyEnum(IntEnum):
    """Base of the policies: they have short names for command lines."""

    @classmethod
    def short_keys(cls) -> list[str]:
        """The names in lower case."""
        return [name.lower() for name in cls.__members__]

    @classmethod
    def get_from_short_key(cls, name: str) -> int:
        """The number of the policy of that name, in upper or lower case."""
        return cls[name.upper()].value

    @property
    def short_key(self) -> str:
        """The name in lower case."""
        return self.name.lower()


class HistoryPolicy(QoSPolicyEnum):
    """How many samples are kept."""

    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2
    UNKNOWN = 3


class ReliabilityPolicy(QoSPolicyEnum):
    """Whether lost samples are sent again."""

    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class DurabilityPolicy(QoSPolicyEnum):
    """Whether late readers get earlier samples."""

    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class LivelinessPolicy(QoSPolicyEnum):
    """Who says that a writer is alive."""

    SYSTEM_DEFAULT = 0
    AUTOMATIC = 1
    MANUAL_BY_TOPIC = 3
    UNKNOWN = 4
    BEST_AVAILABLE = 5


class QoSPolicyKind(IntEnum):
    """Policies that two endpoints may disagree on, numbered as in rmw."""

    INVALID = 1
    DURABILITY = 2
    DEADLINE = 4
    LIVELINESS = 8
    RELIABILITY = 16
    HISTORY = 32
    LIFESPAN = 64
    DEPTH = 128
    LIVELINESS_LEASE_DURATION = 256
    AVOID_ROS_NAMESPACE_CONVENTIONS = 512


class QoSCompatibility(IntEnum):
    """Whether a publisher and a subscription with two profiles can talk."""

    OK = 0
    WARNING = 1
    ERROR = 2


QoSHistoryPolicy = HistoryPolicy
QoSReliabilityPolicy = ReliabilityPolicy
QoSDurabilityPolicy = DurabilityPolicy
QoSLivelinessPolicy = LivelinessPolicy


def qos_policy_name_from_kind(policy_kind: QoSPolicyKind | int) -> str:
    """The name of a policy kind."""
    return QoSPolicyKind(policy_kind).name


class QoSProfile:
    """What a publisher offers or a subscription asks for; durations of 0 are not specified."""

    def __init__(
        self,
        *,
        history: HistoryPolicy | int | None = None,
        depth: int | None = None,
        reliability: ReliabilityPolicy | int = ReliabilityPolicy.RELIABLE,
        durability: DurabilityPolicy | int = DurabilityPolicy.VOLATILE,
        lifespan: Duration = UNSPECIFIED,
        deadline: Duration = UNSPECIFIED,
        liveliness: LivelinessPolicy | int = LivelinessPolicy.SYSTEM_DEFAULT,
        liveliness_lease_duration: Duration = UNSPECIFIED,
        avoid_ros_namespace_conventions: bool = False,
    ) -> None:
        if history is None:
            if depth is None:
                raise InvalidQoSProfileException("History and/or depth settings are required.")
            history = HistoryPolicy.KEEP_LAST
        if history == HistoryPolicy.KEEP_LAST and depth is None:
            raise InvalidQoSProfileException("History set to KEEP_LAST without a depth setting.")
        self.history = HistoryPolicy(history)
        self.depth = 10 if depth is None else depth
        self.reliability = ReliabilityPolicy(reliability)
        self.durability = DurabilityPolicy(durability)
        self.lifespan = lifespan
        self.deadline = deadline
        self.liveliness = LivelinessPolicy(liveliness)
        self.liveliness_lease_duration = liveliness_lease_duration
        self.avoid_ros_namespace_conventions = avoid_ros_namespace_conventions

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QoSProfile):
            return NotImplemented
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={_shown(value)}" for name, value in vars(self).items())
        return f"QoSProfile({values})"


def _shown(value: Any) -> str:
    return value.name if isinstance(value, Enum) else str(value)


qos_profile_unknown = QoSProfile(
    history=HistoryPolicy.UNKNOWN,
    depth=0,
    reliability=ReliabilityPolicy.UNKNOWN,
    durability=DurabilityPolicy.UNKNOWN,
    liveliness=LivelinessPolicy.UNKNOWN,
)
qos_profile_default = QoSProfile(depth=10)
qos_profile_system_default = QoSProfile(
    history=HistoryPolicy.SYSTEM_DEFAULT,
    depth=0,
    reliability=ReliabilityPolicy.SYSTEM_DEFAULT,
    durability=DurabilityPolicy.SYSTEM_DEFAULT,
)
qos_profile_sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
qos_profile_services_default = QoSProfile(depth=10)
qos_profile_parameters = QoSProfile(depth=1000)
qos_profile_parameter_events = QoSProfile(depth=1000)
qos_profile_best_available = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.BEST_AVAILABLE,
    durability=DurabilityPolicy.BEST_AVAILABLE,
    liveliness=LivelinessPolicy.BEST_AVAILABLE,
)
qos_profile_rosout_default = QoSProfile(
    depth=1000,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
    lifespan=Duration(seconds=10),
)
qos_profile_action_status_default = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class QoSPresetProfiles(Enum):
    """The ready-made profiles."""

    UNKNOWN = qos_profile_unknown
    DEFAULT = qos_profile_default
    SYSTEM_DEFAULT = qos_profile_system_default
    SENSOR_DATA = qos_profile_sensor_data
    SERVICES_DEFAULT = qos_profile_services_default
    PARAMETERS = qos_profile_parameters
    PARAMETER_EVENTS = qos_profile_parameter_events
    ACTION_STATUS_DEFAULT = qos_profile_action_status_default
    BEST_AVAILABLE = qos_profile_best_available

    @classmethod
    def short_keys(cls) -> list[str]:
        """The names in lower case."""
        return [name.lower() for name in cls.__members__]

    @classmethod
    def get_from_short_key(cls, name: str) -> Any:
        """The profile called, for example, "sensor_data"."""
        return cls[name.upper()].value


def as_profile(profile: QoSProfile | int) -> QoSProfile:
    """A plain number is a queue depth.

    Raises:
        ValueError: the depth is negative.
        TypeError: neither a profile nor a depth.
    """
    if isinstance(profile, QoSProfile):
        return profile
    if not isinstance(profile, int):
        raise TypeError(f"Expected QoSProfile or int, but received {type(profile)!r}")
    if profile < 0:
        raise ValueError("history depth must be greater than or equal to zero")
    return QoSProfile(depth=profile)


def qos_check_compatible(
    publisher_qos: QoSProfile, subscription_qos: QoSProfile
) -> tuple[QoSCompatibility, str]:
    """Whether a publisher reaches a subscription, and the reasons if it does not."""
    from fastvla_ros.embedded.rcl.qos_compatibility import check_compatible

    return check_compatible(publisher_qos, subscription_qos)
