"""DDS names of ROS topics, services and types, both ways."""

from __future__ import annotations


def topic_to_dds(name: str) -> str:
    """The DDS topic of a fully qualified ROS topic."""
    return f"rt{name}"


def request_topic(service: str) -> str:
    """The DDS topic of a service's requests."""
    return f"rq{service}Request"


def reply_topic(service: str) -> str:
    """The DDS topic of a service's replies."""
    return f"rr{service}Reply"


def ros_topic(dds_topic: str) -> str | None:
    """The ROS topic of a DDS topic, or None for services and non-ROS topics."""
    return dds_topic[2:] if dds_topic.startswith("rt/") else None


def ros_service(dds_topic: str) -> str | None:
    """The service that a request or reply topic belongs to."""
    for prefix, suffix in (("rq/", "Request"), ("rr/", "Reply")):
        if dds_topic.startswith(prefix) and dds_topic.endswith(suffix):
            return dds_topic[2 : -len(suffix)]
    return None


def ros_type(dds_type: str) -> str:
    """`pkg::msg::dds_::X_` as `pkg/msg/X`; other names stay as they are."""
    return dds_type.replace("::dds_::", "::").removesuffix("_").replace("::", "/")


def ros_service_type(dds_type: str) -> str:
    """The service type of a request's or reply's type."""
    return ros_type(dds_type).removesuffix("_Request").removesuffix("_Response")
