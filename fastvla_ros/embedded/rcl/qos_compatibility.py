"""Whether two profiles can talk to each other, and profiles that adapt to the peers there are.

Source: OMG DDS 1.4, 2.2.3 (requested against offered); rmw_dds_common for BEST_AVAILABLE.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from fastvla_ros.embedded.rcl.duration import Duration, Infinite
from fastvla_ros.embedded.rcl.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSPolicyEnum,
    QoSProfile,
    ReliabilityPolicy,
)

UNCERTAIN = ("SYSTEM_DEFAULT", "UNKNOWN", "BEST_AVAILABLE")


def check_compatible(
    publisher_qos: QoSProfile, subscription_qos: QoSProfile
) -> tuple[QoSCompatibility, str]:
    """Compare what is offered with what is requested; the text says what does not fit."""
    offered, requested = publisher_qos, subscription_qos
    errors = [
        text
        for text, broken in (
            (
                "Best effort publisher and reliable subscription",
                offered.reliability == ReliabilityPolicy.BEST_EFFORT
                and requested.reliability == ReliabilityPolicy.RELIABLE,
            ),
            (
                "Volatile publisher and transient local subscription",
                offered.durability == DurabilityPolicy.VOLATILE
                and requested.durability == DurabilityPolicy.TRANSIENT_LOCAL,
            ),
            (
                "Publisher deadline is longer than that of the subscription",
                _limit(offered.deadline) > _limit(requested.deadline),
            ),
            (
                "Publisher's liveliness is automatic and subscription's is manual by topic",
                offered.liveliness == LivelinessPolicy.AUTOMATIC
                and requested.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC,
            ),
            (
                "Publisher's liveliness lease duration is longer than the subscription's",
                _limit(offered.liveliness_lease_duration)
                > _limit(requested.liveliness_lease_duration),
            ),
        )
        if broken
    ]
    if errors:
        return QoSCompatibility.ERROR, "".join(f"ERROR: {text};" for text in errors)
    warnings = [
        f"WARNING: Publisher's {name} is {ours.name} and subscription's is {theirs.name};"
        for name, ours, theirs, weakest, strongest in (
            (
                "reliability",
                offered.reliability,
                requested.reliability,
                ReliabilityPolicy.BEST_EFFORT,
                ReliabilityPolicy.RELIABLE,
            ),
            (
                "durability",
                offered.durability,
                requested.durability,
                DurabilityPolicy.VOLATILE,
                DurabilityPolicy.TRANSIENT_LOCAL,
            ),
            (
                "liveliness",
                offered.liveliness,
                requested.liveliness,
                LivelinessPolicy.AUTOMATIC,
                LivelinessPolicy.MANUAL_BY_TOPIC,
            ),
        )
        if _may_differ(ours, theirs, weakest=weakest, strongest=strongest)
    ]
    return (QoSCompatibility.WARNING if warnings else QoSCompatibility.OK), "".join(warnings)


def _may_differ(
    offered: QoSPolicyEnum,
    requested: QoSPolicyEnum,
    *,
    weakest: QoSPolicyEnum,
    strongest: QoSPolicyEnum,
) -> bool:
    """Whether a policy that is left to the middleware may turn out not to fit."""
    if offered.name in UNCERTAIN:
        return requested.name in UNCERTAIN or requested == strongest
    return requested.name in UNCERTAIN and offered == weakest


def _limit(duration: Duration) -> Duration:
    """A duration of 0 is not specified, so there is no limit."""
    return duration if duration.nanoseconds else Infinite


def is_adaptive(profile: QoSProfile) -> bool:
    """Whether the profile leaves something to the peers."""
    policies = (profile.reliability, profile.durability, profile.liveliness)
    return any(policy.name == "BEST_AVAILABLE" for policy in policies)


def for_subscription(profile: QoSProfile, publishers: Sequence[QoSProfile]) -> QoSProfile:
    """The profile that gets messages of all these publishers, and is as strong as it can be."""

    def every(condition: Callable[[QoSProfile], bool]) -> bool:
        return all(map(condition, publishers))

    return _settled(
        profile,
        reliable=every(lambda p: p.reliability == ReliabilityPolicy.RELIABLE),
        transient=every(lambda p: p.durability == DurabilityPolicy.TRANSIENT_LOCAL),
        manual=bool(publishers)
        and every(lambda p: p.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC),
    )


def for_publisher(profile: QoSProfile, subscriptions: Sequence[QoSProfile]) -> QoSProfile:
    """The profile that reaches all these subscriptions."""
    manual = any(s.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC for s in subscriptions)
    return _settled(profile, reliable=True, transient=True, manual=manual)


def _settled(profile: QoSProfile, *, reliable: bool, transient: bool, manual: bool) -> QoSProfile:
    result = copy.copy(profile)
    if profile.reliability == ReliabilityPolicy.BEST_AVAILABLE:
        kinds = (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE)
        result.reliability = kinds[reliable]
    if profile.durability == DurabilityPolicy.BEST_AVAILABLE:
        kinds = (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL)
        result.durability = kinds[transient]
    if profile.liveliness == LivelinessPolicy.BEST_AVAILABLE:
        kinds = (LivelinessPolicy.AUTOMATIC, LivelinessPolicy.MANUAL_BY_TOPIC)
        result.liveliness = kinds[manual]
    return result
