"""ROS profiles as DDS policies, and back for what discovery reports."""

from __future__ import annotations

from cyclonedds.qos import Policy, Qos

from fastvla_ros.embedded.rcl.duration import Duration, Infinite
from fastvla_ros.embedded.rcl.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from fastvla_ros.embedded.wire.dds_qos import BEST_EFFORT, INFINITE, RELIABLE, endpoint_qos

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


def dds_qos(profile: QoSProfile, user_data: bytes) -> Qos:
    """The policies of an endpoint with this profile."""
    depth = queue_depth(profile)
    history = Policy.History.KeepAll if depth is None else Policy.History.KeepLast(depth)
    reliable = profile.reliability != ReliabilityPolicy.BEST_EFFORT
    policies: list[object] = [RELIABLE if reliable else BEST_EFFORT]
    if _is_limited(profile.deadline):
        policies.append(Policy.Deadline(profile.deadline.nanoseconds))
    if _is_limited(profile.lifespan):
        policies.append(Policy.Lifespan(profile.lifespan.nanoseconds))
    lease = profile.liveliness_lease_duration
    lease_ns = lease.nanoseconds if _is_limited(lease) else INFINITE
    if profile.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC:
        policies.append(Policy.Liveliness.ManualByTopic(lease_ns))
    elif _is_limited(lease):
        policies.append(Policy.Liveliness.Automatic(lease_ns))
    transient = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return endpoint_qos(*policies, history=history, transient=transient, user_data=user_data)


def _is_limited(duration: Duration) -> bool:
    """ROS writes "not specified" as 0 or as the longest duration there is."""
    return 0 < duration.nanoseconds < Infinite.nanoseconds


def ros_profile(qos: Qos) -> QoSProfile:
    """What discovery tells about an endpoint; history does not cross the wire."""
    profile = QoSProfile(
        history=HistoryPolicy.UNKNOWN,
        depth=0,
        deadline=Infinite,
        lifespan=Infinite,
        liveliness=LivelinessPolicy.AUTOMATIC,
        liveliness_lease_duration=Infinite,
    )
    for policy in qos:
        if isinstance(policy, Policy.Reliability.Reliable):
            profile.reliability = ReliabilityPolicy.RELIABLE
        elif policy == BEST_EFFORT:
            profile.reliability = ReliabilityPolicy.BEST_EFFORT
        elif policy == Policy.Durability.TransientLocal:
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
        elif isinstance(policy, Policy.Deadline):
            profile.deadline = Duration(nanoseconds=policy.deadline)
        elif isinstance(policy, Policy.Lifespan):
            profile.lifespan = Duration(nanoseconds=policy.lifespan)
        elif isinstance(policy, (Policy.Liveliness.Automatic, Policy.Liveliness.ManualByTopic)):
            manual = isinstance(policy, Policy.Liveliness.ManualByTopic)
            kinds = (LivelinessPolicy.AUTOMATIC, LivelinessPolicy.MANUAL_BY_TOPIC)
            profile.liveliness = kinds[manual]
            profile.liveliness_lease_duration = Duration(nanoseconds=policy.lease_duration)
    return profile
