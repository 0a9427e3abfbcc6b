"""DDS policies that every endpoint of ours has, whatever its ROS profile."""

from __future__ import annotations

from cyclonedds.qos import Policy, Qos
from cyclonedds.util import duration

INFINITE = duration(infinite=True)

RELIABLE = Policy.Reliability.Reliable(INFINITE)
BEST_EFFORT = Policy.Reliability.BestEffort


def endpoint_qos(*policies: object, history: object, transient: bool, user_data: bytes) -> Qos:
    """A QoS set for a reader or a writer.

    Args:
        history: Also what a transient_local writer keeps for late readers: CycloneDDS looks at
            the durability service for that.
    """
    chosen = [
        *policies,
        history,
        Policy.Durability.TransientLocal if transient else Policy.Durability.Volatile,
        Policy.Userdata(user_data),
        Policy.DataRepresentation(use_cdrv0_representation=True),
        Policy.WriterDataLifecycle(autodispose=False),
    ]
    if transient:
        chosen.append(Policy.DurabilityService(0, history, -1, -1, -1))
    return Qos(*chosen)


def user_data_items(qos: Qos) -> dict[str, str]:
    """The `key=value;` items that ROS puts into USER_DATA."""
    for policy in qos:
        if isinstance(policy, Policy.Userdata):
            text = bytes(policy.data).decode("ascii", "replace")
            return dict(item.split("=", 1) for item in text.split(";") if "=" in item)
    return {}
