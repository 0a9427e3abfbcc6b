"""What the graph knows about one publisher or subscription."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from fastvla_ros.embedded.rcl.qos import HistoryPolicy, QoSProfile, qos_profile_unknown
from fastvla_ros.embedded.rcl.type_hash import TypeHash


class TopicEndpointTypeEnum(IntEnum):
    """Which side an endpoint is."""

    INVALID = 0
    PUBLISHER = 1
    SUBSCRIPTION = 2


@dataclass(frozen=True, kw_only=True)
class TopicEndpointInfo:
    """One endpoint; the node is "_NODE_NAME_UNKNOWN_" until its announcement arrives."""

    node_name: str = ""
    node_namespace: str = ""
    topic_type: str = ""
    topic_type_hash: TypeHash = field(default_factory=TypeHash)
    endpoint_type: TopicEndpointTypeEnum = TopicEndpointTypeEnum.INVALID
    endpoint_gid: list[int] = field(default_factory=list)
    qos_profile: QoSProfile = field(default_factory=lambda: qos_profile_unknown)

    def __str__(self) -> str:
        qos = self.qos_profile
        depth = f" ({qos.depth})" if qos.history is HistoryPolicy.KEEP_LAST else ""
        return "\n".join(
            (
                f"Node name: {self.node_name}",
                f"Node namespace: {self.node_namespace}",
                f"Topic type: {self.topic_type}",
                f"Topic type hash: {self.topic_type_hash}",
                f"Endpoint type: {self.endpoint_type.name}",
                f"GID: {'.'.join(f'{byte:02x}' for byte in self.endpoint_gid)}",
                "QoS profile:",
                f"  Reliability: {qos.reliability.name}",
                f"  History (Depth): {qos.history.name}{depth}",
                f"  Durability: {qos.durability.name}",
                f"  Lifespan: {qos.lifespan}",
                f"  Deadline: {qos.deadline}",
                f"  Liveliness: {qos.liveliness.name}",
                f"  Liveliness lease duration: {qos.liveliness_lease_duration}",
            )
        )
