"""Rules for names, expansion of relative ones, and remapping.

Source: ROS 2 design, "Topic and Service name mapping to DDS", "Remapping Names".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fastvla_ros.embedded.rcl.arguments import RemapRule
from fastvla_ros.embedded.rcl.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)

TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
SUBSTITUTION = re.compile(r"\{(\w*)\}")


def validate_node_name(name: str) -> None:
    """Raise InvalidNodeNameException unless the name is one token."""
    if not TOKEN.match(name):
        raise InvalidNodeNameException(name, "node name must be letters, digits, underscores", 0)


def validate_namespace(namespace: str) -> None:
    """Raise InvalidNamespaceException unless it is `/` or `/token/...`."""
    if namespace == "/":
        return
    if not namespace.startswith("/"):
        raise InvalidNamespaceException(namespace, "namespace must be absolute", 0)
    for token in namespace[1:].split("/"):
        if not TOKEN.match(token):
            index = namespace.index(token, 1) if token else len(namespace)
            raise InvalidNamespaceException(namespace, "namespace has a bad token", index)


def full_node_name(namespace: str, name: str) -> str:
    """The node's fully qualified name."""
    return f"{namespace.rstrip('/')}/{name}"


def expand_name(name: str, *, node: str, namespace: str, is_service: bool = False) -> str:
    """The absolute form of a name as a node writes it.

    Raises:
        InvalidTopicNameException: the name breaks the rules (or its service twin).
    """
    error = InvalidServiceNameException if is_service else InvalidTopicNameException
    if not name:
        raise error(name, "name must not be empty", 0)
    replaced = SUBSTITUTION.sub(
        lambda match: {"node": node, "ns": namespace, "namespace": namespace}.get(match[1], "!"),
        name,
    )
    if replaced == "~" or replaced.startswith("~/"):
        full = full_node_name(namespace, node) + replaced[1:]
    elif replaced.startswith("/"):
        full = replaced
    else:
        full = f"{namespace.rstrip('/')}/{replaced}"
    full = full.replace("//", "/")
    for token in full[1:].split("/"):
        if not TOKEN.match(token):
            index = max(name.find(token), 0) if token else max(len(name) - 1, 0)
            raise error(name, "tokens must be letters, digits, underscores, not empty", index)
    return full


def remap_name(
    name: str,
    rules: Sequence[RemapRule],
    *,
    node: str,
    namespace: str,
    is_service: bool = False,
) -> str:
    """The name after the first rule that fits; both sides of a rule are expanded first."""
    kind = "service" if is_service else "topic"
    for rule in rules:
        if rule.source.startswith("__") or rule.node not in (None, node):
            continue
        if rule.kind not in (None, kind):
            continue
        if expand_name(rule.source, node=node, namespace=namespace) == name:
            return expand_name(rule.target, node=node, namespace=namespace)
    return name


def remap_node(name: str, namespace: str, rules: Sequence[RemapRule]) -> tuple[str, str]:
    """The node's name and namespace after `__node` and `__ns`."""
    remapped_name, remapped_namespace = name, namespace
    for rule in reversed(rules):
        if rule.node in (None, name):
            if rule.source == "__node":
                remapped_name = rule.target
            elif rule.source == "__ns":
                remapped_namespace = rule.target
    return remapped_name, remapped_namespace
