"""Which DDS status is which QoS event of ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cyclonedds.core import DDSStatus

from fastvla_ros.embedded.rcl.dds_profile import POLICY_KINDS
from fastvla_ros.embedded.rcl.event_handler import (
    QoSCountInfo,
    QoSIncompatibleInfo,
    QoSLivelinessChangedInfo,
    QoSMatchedInfo,
)
from fastvla_ros.embedded.rcl.qos import QoSPolicyKind


@dataclass(frozen=True, slots=True)
class EventKind:
    """One kind of event of a reader or a writer.

    Args:
        callback: What rclpy calls it in its event callbacks.
        status: The DDS status bit that announces it.
        read: Takes the details from the DDS entity, and resets its `change` counters.
    """

    callback: str
    status: int
    read: Callable[[Any], Any]


def _count(detail: Any) -> QoSCountInfo:
    return QoSCountInfo(detail.total_count, detail.total_count_change)


def _incompatible(detail: Any) -> QoSIncompatibleInfo:
    kind = POLICY_KINDS.get(detail.last_policy_id, QoSPolicyKind.INVALID)
    return QoSIncompatibleInfo(detail.total_count, detail.total_count_change, kind)


def _matched(detail: Any) -> QoSMatchedInfo:
    return QoSMatchedInfo(
        detail.total_count,
        detail.total_count_change,
        detail.current_count,
        detail.current_count_change,
    )


def _liveliness(detail: Any) -> QoSLivelinessChangedInfo:
    return QoSLivelinessChangedInfo(
        detail.alive_count,
        detail.not_alive_count,
        detail.alive_count_change,
        detail.not_alive_count_change,
    )


READER_EVENTS = (
    EventKind(
        "deadline",
        DDSStatus.RequestedDeadlineMissed,
        lambda reader: _count(reader.get_requested_deadline_missed_status()),
    ),
    EventKind(
        "incompatible_qos",
        DDSStatus.RequestedIncompatibleQos,
        lambda reader: _incompatible(reader.get_requested_incompatible_qos_status()),
    ),
    EventKind(
        "liveliness",
        DDSStatus.LivelinessChanged,
        lambda reader: _liveliness(reader.get_liveliness_changed_status()),
    ),
    EventKind(
        "message_lost",
        DDSStatus.SampleLost,
        lambda reader: _count(reader.get_sample_lost_status()),
    ),
    EventKind(
        "matched",
        DDSStatus.SubscriptionMatched,
        lambda reader: _matched(reader.get_subscription_matched_status()),
    ),
)

WRITER_EVENTS = (
    EventKind(
        "deadline",
        DDSStatus.OfferedDeadlineMissed,
        lambda writer: _count(writer.get_offered_deadline_missed_status()),
    ),
    EventKind(
        "incompatible_qos",
        DDSStatus.OfferedIncompatibleQos,
        lambda writer: _incompatible(writer.get_offered_incompatible_qos_status()),
    ),
    EventKind(
        "liveliness",
        DDSStatus.LivelinessLost,
        lambda writer: _count(writer.get_liveliness_lost_status()),
    ),
    EventKind(
        "matched",
        DDSStatus.PublicationMatched,
        lambda writer: _matched(writer.get_publication_matched_status()),
    ),
)
