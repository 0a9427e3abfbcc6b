"""Which DDS status is which QoS event of ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastvla_ros.embedded.rcl.dds_profile import POLICY_KINDS
from fastvla_ros.embedded.rcl.event_handler import (
    QoSCountInfo,
    QoSIncompatibleInfo,
    QoSLivelinessChangedInfo,
    QoSMatchedInfo,
)
from fastvla_ros.embedded.rcl.qos import QoSPolicyKind
from fastvla_ros.embedded.wire.entities import Entity
from fastvla_ros.embedded.wire.statuses import Alive, Count, Incompatible, Matched, Status


@dataclass(frozen=True, slots=True)
class EventKind:
    """One kind of event of a reader or a writer.

    Args:
        callback: What rclpy calls it in its event callbacks.
        status: The DDS status bit that announces it.
        name: What libddsc calls the status.
        detail: The struct of its details.
        info: What rclpy makes of them.
    """

    callback: str
    status: int
    name: str
    detail: type[Any]
    info: Callable[[Any], Any]

    def read(self, entity: Entity) -> Any:
        """The details, whose `change` counters start anew."""
        detail = self.detail()
        entity.read_status(self.name, detail)
        return self.info(detail)


def _count(detail: Count) -> QoSCountInfo:
    return QoSCountInfo(detail.total_count, detail.total_count_change)


def _incompatible(detail: Incompatible) -> QoSIncompatibleInfo:
    kind = POLICY_KINDS.get(detail.last_policy_id, QoSPolicyKind.INVALID)
    return QoSIncompatibleInfo(detail.total_count, detail.total_count_change, kind)


def _matched(detail: Matched) -> QoSMatchedInfo:
    return QoSMatchedInfo(
        detail.total_count,
        detail.total_count_change,
        detail.current_count,
        detail.current_count_change,
    )


def _liveliness(detail: Alive) -> QoSLivelinessChangedInfo:
    return QoSLivelinessChangedInfo(
        detail.alive_count,
        detail.not_alive_count,
        detail.alive_count_change,
        detail.not_alive_count_change,
    )


# callback, status, libddsc's name, details, rclpy's info
READER_EVENTS = tuple(
    EventKind(*row)
    for row in (
        ("deadline", Status.REQUESTED_DEADLINE_MISSED, "requested_deadline_missed", Count, _count),
        (
            "incompatible_qos",
            Status.REQUESTED_INCOMPATIBLE_QOS,
            "requested_incompatible_qos",
            Incompatible,
            _incompatible,
        ),
        ("liveliness", Status.LIVELINESS_CHANGED, "liveliness_changed", Alive, _liveliness),
        ("message_lost", Status.SAMPLE_LOST, "sample_lost", Count, _count),
        ("matched", Status.SUBSCRIPTION_MATCHED, "subscription_matched", Matched, _matched),
    )
)

WRITER_EVENTS = tuple(
    EventKind(*row)
    for row in (
        ("deadline", Status.OFFERED_DEADLINE_MISSED, "offered_deadline_missed", Count, _count),
        (
            "incompatible_qos",
            Status.OFFERED_INCOMPATIBLE_QOS,
            "offered_incompatible_qos",
            Incompatible,
            _incompatible,
        ),
        ("liveliness", Status.LIVELINESS_LOST, "liveliness_lost", Count, _count),
        ("matched", Status.PUBLICATION_MATCHED, "publication_matched", Matched, _matched),
    )
)
