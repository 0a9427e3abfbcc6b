"""ROS profiles as DDS policies, and back for what discovery reports."""

from __future__ import annotations

from fastvla_ros.embedded.rcl.duration import Duration
from fastvla_ros.embedded.rcl.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from fastvla_ros.embedded.wire.dds_qos import DdsQos
from fastvla_ros.embedded.wire.libddsc import INFINITE_NS

# DDS's policy ids (OMG DDS 1.4, 2.3.3) of the policies that can be incompatible in ROS.
POLICY_KINDS = {
    2: QoSPolicyKind.DURABILITY,
    4: QoSPolicyKind.DEADLINE,
    8: QoSPolicyKind.LIVELINESS,
    11: QoSPolicyKind.RELIABILITY,
}


def queue_depth(profile: QoSProfile) -> int | None:
    """How many samples are kept; None is all of them. A depth of 0 means 1, as in rmw."""
    return None if profile.history == HistoryPolicy.KEEP_ALL else max(profile.depth, 1)


def dds_qos(profile: QoSProfile, user_data: bytes) -> DdsQos:
    """The QoS of an endpoint with this profile."""
    return DdsQos(
        reliable=profile.reliability != ReliabilityPolicy.BEST_EFFORT,
        depth=queue_depth(profile),
        transient_local=profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
        deadline_ns=_limit_ns(profile.deadline),
        lifespan_ns=_limit_ns(profile.lifespan),
        by_topic=profile.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC,
        lease_ns=_limit_ns(profile.liveliness_lease_duration),
        user_data=user_data,
    )


def _limit_ns(duration: Duration) -> int:
    """ROS writes "not specified" as 0 or as the longest duration there is."""
    return duration.nanoseconds if duration.nanoseconds > 0 else INFINITE_NS


def ros_profile(qos: DdsQos) -> QoSProfile:
    """What discovery tells about an endpoint; history does not cross the wire."""
    reliability = (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE)
    durability = (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)
    liveliness = (LivelinessPolicy.AUTOMATIC, LivelinessPolicy.MANUAL_BY_TOPIC)
    return QoSProfile(
        history=HistoryPolicy.UNKNOWN,
        depth=0,
        reliability=reliability[qos.reliable],
        durability=durability[qos.transient_local],
        deadline=Duration(nanoseconds=qos.deadline_ns),
        lifespan=Duration(nanoseconds=qos.lifespan_ns),
        liveliness=liveliness[qos.by_topic],
        liveliness_lease_duration=Duration(nanoseconds=qos.lease_ns),
    )
