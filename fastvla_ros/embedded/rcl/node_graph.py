"""What a node can ask about the graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastvla_ros.embedded.rcl.dds_profile import ros_profile
from fastvla_ros.embedded.rcl.names import full_node_name
from fastvla_ros.embedded.rcl.topic_endpoint_info import TopicEndpointInfo, TopicEndpointTypeEnum
from fastvla_ros.embedded.wire.graph import Endpoint, Graph, GraphNode
from fastvla_ros.embedded.wire.names import ros_service, ros_service_type, ros_topic, ros_type

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

    def get_fully_qualified_node_names(self) -> list[str]:
        """Every node's full name."""
        return [full_node_name(node.namespace, node.name) for node in self._graph.nodes()]

    def get_publisher_names_and_types_by_node(
        self, node_name: str, node_namespace: str, no_demangle: bool = False
    ) -> NamesAndTypes:
        """The topics that a node publishes."""
        del no_demangle
        return _topics(self._of_node(node_name, node_namespace, self._graph.writers()))

    def get_subscriber_names_and_types_by_node(
        self, node_name: str, node_namespace: str, no_demangle: bool = False
    ) -> NamesAndTypes:
        """The topics that a node subscribes to."""
        del no_demangle
        return _topics(self._of_node(node_name, node_namespace, self._graph.readers()))

    def get_service_names_and_types_by_node(
        self, node_name: str, node_namespace: str
    ) -> NamesAndTypes:
        """The services that a node serves."""
        readers = self._of_node(node_name, node_namespace, self._graph.readers())
        return _services(readers, prefixes=("rq/",))

    def get_client_names_and_types_by_node(
        self, node_name: str, node_namespace: str
    ) -> NamesAndTypes:
        """The services that a node calls."""
        readers = self._of_node(node_name, node_namespace, self._graph.readers())
        return _services(readers, prefixes=("rr/",))

    def count_publishers(self, topic_name: str) -> int:
        """How many publishers a topic has."""
        return len(self._on_topic(topic_name, self._graph.writers()))

    def count_subscribers(self, topic_name: str) -> int:
        """How many subscriptions a topic has."""
        return len(self._on_topic(topic_name, self._graph.readers()))

    def count_services(self, service_name: str) -> int:
        """How many servers a service has."""
        dds_name = f"rq{self.resolve_service_name(service_name)}Request"
        return sum(e.topic == dds_name for e in self._graph.readers())

    def count_clients(self, service_name: str) -> int:
        """How many clients a service has."""
        dds_name = f"rq{self.resolve_service_name(service_name)}Request"
        return sum(e.topic == dds_name for e in self._graph.writers())

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
        self, topic: str, endpoints: list[Endpoint], *, no_mangle: bool = False
    ) -> list[Endpoint]:
        dds_name = topic if no_mangle else f"rt{self.resolve_topic_name(topic)}"
        return [endpoint for endpoint in endpoints if endpoint.topic == dds_name]

    def _of_node(self, name: str, namespace: str, endpoints: list[Endpoint]) -> list[Endpoint]:
        guids: set[bytes] = set()
        for node in self._graph.nodes():
            if (node.name, node.namespace) == (name, namespace):
                guids |= node.readers | node.writers
        return [endpoint for endpoint in endpoints if endpoint.guid in guids]

    def _infos(
        self, endpoints: list[Endpoint], kind: TopicEndpointTypeEnum
    ) -> list[TopicEndpointInfo]:
        nodes = self._graph.nodes()
        infos = []
        for endpoint in endpoints:
            namespace, name = _owner(endpoint.guid, nodes)
            infos.append(
                TopicEndpointInfo(
                    name,
                    namespace,
                    ros_type(endpoint.type_name),
                    kind,
                    list(endpoint.guid),
                    ros_profile(endpoint.qos),
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


def _topics(endpoints: Iterable[Endpoint]) -> NamesAndTypes:
    named = ((ros_topic(e.topic), ros_type(e.type_name)) for e in endpoints)
    return _grouped((name, kind) for name, kind in named if name is not None)


def _services(endpoints: Iterable[Endpoint], *, prefixes: tuple[str, ...]) -> NamesAndTypes:
    named = (
        (ros_service(e.topic), ros_service_type(e.type_name))
        for e in endpoints
        if e.topic.startswith(prefixes)
    )
    return _grouped((name, kind) for name, kind in named if name is not None)
