"""What a node can ask about the graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastvla_ros.embedded.rcl._rclpy_pybind11 import NodeNameNonExistentError
from fastvla_ros.embedded.rcl.dds_profile import ros_profile
from fastvla_ros.embedded.rcl.names import full_node_name
from fastvla_ros.embedded.rcl.topic_endpoint_info import TopicEndpointInfo, TopicEndpointTypeEnum
from fastvla_ros.embedded.rcl.type_hash import parse_type_hash
from fastvla_ros.embedded.wire.dds_qos import user_data_items
from fastvla_ros.embedded.wire.discovered import Discovered
from fastvla_ros.embedded.wire.graph import Graph, GraphNode
from fastvla_ros.embedded.wire.names import (
    request_topic,
    ros_service,
    ros_service_type,
    ros_topic,
    ros_type,
)

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.context import Context

NamesAndTypes = list[tuple[str, list[str]]]
UNKNOWN_NODE = ("_NODE_NAMESPACE_UNKNOWN_", "_NODE_NAME_UNKNOWN_")


class NodeGraph:
    """Graph queries of `Node`; names are expanded and remapped by the node's rules."""

    if TYPE_CHECKING:

        @property
        def context(self) -> Context: ...

        def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str: ...
        def resolve_service_name(self, service: str, *, only_expand: bool = False) -> str: ...

    @property
    def _graph(self) -> Graph:
        return self.context.graph

    def get_topic_names_and_types(self, no_demangle: bool = False) -> NamesAndTypes:
        """Every topic with its types; with `no_demangle` the DDS names of everything."""
        endpoints = self._graph.writers() + self._graph.readers()
        if no_demangle:
            return _grouped((e.topic, e.type_name) for e in endpoints)
        return _topics(endpoints)

    def get_service_names_and_types(self) -> NamesAndTypes:
        """Every service with its types."""
        return _services(self._graph.writers() + self._graph.readers(), prefixes=("rq/", "rr/"))

    def get_node_names(self) -> list[str]:
        """Every node's name without its namespace."""
        return [node.name for node in self._graph.nodes()]

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        """Every node's name and namespace."""
        return [(node.name, node.namespace) for node in self._graph.nodes()]

    def get_node_names_and_namespaces_with_enclaves(self) -> list[tuple[str, str, str]]:
        """Every node's name, namespace and enclave."""
        graph = self._graph
        return [(n.name, n.namespace, graph.enclave(n.participant)) for n in graph.nodes()]

    def get_fully_qualified_node_names(self) -> list[str]:
        """Every node's full name."""
        return [full_node_name(node.namespace, node.name) for node in self._graph.nodes()]

    def get_publisher_names_and_types_by_node(
        self, node_name: str, node_namespace: str, no_demangle: bool = False
    ) -> NamesAndTypes:
        """The topics that a node publishes; NodeNameNonExistentError without such a node."""
        del no_demangle
        return _topics(self._of_node(node_name, node_namespace, self._graph.writers()))

    def get_subscriber_names_and_types_by_node(
        self, node_name: str, node_namespace: str, no_demangle: bool = False
    ) -> NamesAndTypes:
        """The topics that a node subscribes to; NodeNameNonExistentError without such a node."""
        del no_demangle
        return _topics(self._of_node(node_name, node_namespace, self._graph.readers()))

    def get_service_names_and_types_by_node(
        self, node_name: str, node_namespace: str
    ) -> NamesAndTypes:
        """The services that a node serves; NodeNameNonExistentError without such a node."""
        readers = self._of_node(node_name, node_namespace, self._graph.readers())
        return _services(readers, prefixes=("rq/",))

    def get_client_names_and_types_by_node(
        self, node_name: str, node_namespace: str
    ) -> NamesAndTypes:
        """The services that a node calls; NodeNameNonExistentError without such a node."""
        readers = self._of_node(node_name, node_namespace, self._graph.readers())
        return _services(readers, prefixes=("rr/",))

    def count_publishers(self, topic_name: str) -> int:
        """How many publishers a topic has; the name is expanded but not remapped."""
        topic = f"rt{self.resolve_topic_name(topic_name, only_expand=True)}"
        return sum(e.topic == topic for e in self._graph.writers())

    def count_subscribers(self, topic_name: str) -> int:
        """How many subscriptions a topic has; the name is expanded but not remapped."""
        topic = f"rt{self.resolve_topic_name(topic_name, only_expand=True)}"
        return sum(e.topic == topic for e in self._graph.readers())

    def count_services(self, service_name: str) -> int:
        """How many servers a service has; the name is expanded but not remapped."""
        topic = request_topic(self.resolve_service_name(service_name, only_expand=True))
        return sum(e.topic == topic for e in self._graph.readers())

    def count_clients(self, service_name: str) -> int:
        """How many clients a service has; the name is expanded but not remapped."""
        topic = request_topic(self.resolve_service_name(service_name, only_expand=True))
        return sum(e.topic == topic for e in self._graph.writers())

    def get_publishers_info_by_topic(
        self, topic_name: str, no_mangle: bool = False
    ) -> list[TopicEndpointInfo]:
        """Every publisher of a topic, with node and QoS."""
        found = self._on_topic(topic_name, self._graph.writers(), no_mangle=no_mangle)
        return self._infos(found, TopicEndpointTypeEnum.PUBLISHER)

    def get_subscriptions_info_by_topic(
        self, topic_name: str, no_mangle: bool = False
    ) -> list[TopicEndpointInfo]:
        """Every subscription of a topic, with node and QoS."""
        found = self._on_topic(topic_name, self._graph.readers(), no_mangle=no_mangle)
        return self._infos(found, TopicEndpointTypeEnum.SUBSCRIPTION)

    def wait_for_node(self, fully_qualified_node_name: str, timeout: float) -> bool:
        """Wait until a node of that name is on the graph; False when the time is over."""
        name = "/" + fully_qualified_node_name.lstrip("/")
        return self._graph.wait_until(
            lambda: name in self.get_fully_qualified_node_names(),
            timeout_s=timeout,
            ok=self.context.ok,
        )

    def _on_topic(
        self, topic: str, endpoints: list[Discovered], *, no_mangle: bool = False
    ) -> list[Discovered]:
        dds_name = topic if no_mangle else f"rt{self.resolve_topic_name(topic)}"
        return [endpoint for endpoint in endpoints if endpoint.topic == dds_name]

    def _of_node(self, name: str, namespace: str, endpoints: list[Discovered]) -> list[Discovered]:
        owners = [n for n in self._graph.nodes() if (n.name, n.namespace) == (name, namespace)]
        if not owners:
            raise NodeNameNonExistentError(
                f"cannot get the names and types of '{full_node_name(namespace, name)}': the graph "
                "has no such node"
            )
        guids = {guid for node in owners for guid in node.readers | node.writers}
        return [endpoint for endpoint in endpoints if endpoint.guid in guids]

    def _infos(
        self, endpoints: list[Discovered], kind: TopicEndpointTypeEnum
    ) -> list[TopicEndpointInfo]:
        nodes = self._graph.nodes()
        infos = []
        for endpoint in endpoints:
            namespace, name = _owner(endpoint.guid, nodes)
            infos.append(
                TopicEndpointInfo(
                    node_name=name,
                    node_namespace=namespace,
                    topic_type=ros_type(endpoint.type_name),
                    topic_type_hash=parse_type_hash(
                        user_data_items(endpoint.qos.user_data).get("typehash", "")
                    ),
                    endpoint_type=kind,
                    endpoint_gid=list(endpoint.guid),
                    qos_profile=ros_profile(endpoint.qos),
                )
            )
        return infos


def _owner(guid: bytes, nodes: list[GraphNode]) -> tuple[str, str]:
    for node in nodes:
        if guid in node.readers or guid in node.writers:
            return node.namespace, node.name
    return UNKNOWN_NODE


def _grouped(pairs: Iterable[tuple[str, str]]) -> NamesAndTypes:
    grouped: defaultdict[str, set[str]] = defaultdict(set)
    for name, kind in pairs:
        grouped[name].add(kind)
    return [(name, sorted(kinds)) for name, kinds in sorted(grouped.items())]


def _topics(endpoints: Iterable[Discovered]) -> NamesAndTypes:
    named = ((ros_topic(e.topic), ros_type(e.type_name)) for e in endpoints)
    return _grouped((name, kind) for name, kind in named if name is not None)


def _services(endpoints: Iterable[Discovered], *, prefixes: tuple[str, ...]) -> NamesAndTypes:
    named = (
        (ros_service(e.topic), ros_service_type(e.type_name))
        for e in endpoints
        if e.topic.startswith(prefixes)
    )
    return _grouped((name, kind) for name, kind in named if name is not None)
