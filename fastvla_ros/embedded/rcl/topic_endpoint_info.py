"""What the graph knows about one publisher or subscription."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from fastvla_ros.embedded.rcl.qos import QoSProfile


class TopicEndpointTypeEnum(IntEnum):
    """Which side an endpoint is."""

    INVALID = 0
    PUBLISHER = 1
    SUBSCRIPTION = 2


@dataclass(frozen=True)
class TopicEndpointInfo:
    """One endpoint; the node is "_NODE_NAME_UNKNOWN_" until its announcement arrives."""

    node_name: str
    node_namespace: str
    topic_type: str
    endpoint_type: TopicEndpointTypeEnum
    endpoint_gid: list[int]
    qos_profile: QoSProfile
