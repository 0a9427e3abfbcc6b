"""Rules for names, expansion of relative ones, and remapping.

Source: ROS 2 design, "Topic and Service name mapping to DDS", "Remapping Names".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from fastvla_ros.embedded.rcl.arguments import RemapRule
from fastvla_ros.embedded.rcl.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidParameterException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)

TOPIC_SEPARATOR_STRING = "/"
HIDDEN_TOPIC_PREFIX = "_"
# DDS allows 255 characters, and ROS prefixes and suffixes some.
MAX_TOPIC, MAX_NAMESPACE, MAX_NODE = 247, 245, 255

TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
SUBSTITUTION = re.compile(r"\{(\w*)\}")
# What is wrong, and a pattern that finds where.
FULL_NAME_RULES = (
    ("must be absolute, it must lead with a '/'", re.compile(r"\A(?!/)")),
    ("must not end with a '/'", re.compile(r"(?<=.)/\Z")),
    (
        "must not contain characters other than alphanumerics, '_', or '/'",
        re.compile(r"[^A-Za-z0-9_/]"),
    ),
    ("must not contain repeated '/'", re.compile(r"(?<=/)/")),
    ("must not have a token that starts with a number", re.compile(r"(?<=/)[0-9]")),
)
RELATIVE_NAME_RULES = (
    ("must not be empty", re.compile(r"\A\Z")),
    ("must not end with a '/'", re.compile(r"/\Z")),
    (
        "must not contain characters other than alphanumerics, '_', '~', '{', '}', or '/'",
        re.compile(r"[^A-Za-z0-9_/~{}]"),
    ),
    ("must have '~' only at the start, and a '/' behind it", re.compile(r"(?<!\A)~|~(?![/]|\Z)")),
    ("must have whole substitutions such as {node}", re.compile(r"\{(?!\w*\})|(?<![\w{])\}")),
    ("must not have a token that starts with a number", re.compile(r"(?:\A|(?<=/))[0-9]")),
)
NODE_RULES = (
    ("must not be empty", re.compile(r"\A\Z")),
    (
        "must not contain characters other than alphanumerics or '_'",
        re.compile(r"[^A-Za-z0-9_]"),
    ),
    ("must not start with a number", re.compile(r"\A[0-9]")),
)


def validate_node_name(node_name: str) -> Literal[True]:
    """Raise InvalidNodeNameException unless the name is one token."""
    if broken := _broken(node_name, NODE_RULES, MAX_NODE):
        raise InvalidNodeNameException(node_name, f"node name {broken[0]}", broken[1])
    return True


def validate_namespace(namespace: str) -> Literal[True]:
    """Raise InvalidNamespaceException unless it is `/` or `/token/...`."""
    if namespace != "/" and (broken := _broken(namespace, FULL_NAME_RULES, MAX_NAMESPACE)):
        raise InvalidNamespaceException(namespace, f"namespace {broken[0]}", broken[1])
    return True


def validate_topic_name(name: str, *, is_service: bool = False) -> Literal[True]:
    """Raise InvalidTopicNameException (or its service twin) unless a node may write the name."""
    return _validate(name, RELATIVE_NAME_RULES, is_service=is_service)


def validate_full_topic_name(name: str, *, is_service: bool = False) -> Literal[True]:
    """Raise InvalidTopicNameException (or its service twin) unless the name is absolute."""
    return _validate(name, FULL_NAME_RULES, is_service=is_service)


def validate_parameter_name(name: str) -> Literal[True]:
    """Raise InvalidParameterException when the name is empty."""
    if not name:
        raise InvalidParameterException(name)
    return True


def topic_or_service_is_hidden(name: str) -> bool:
    """Whether a part of the name starts with an underscore."""
    return any(part.startswith(HIDDEN_TOPIC_PREFIX) for part in name.split("/"))


def full_node_name(namespace: str, name: str) -> str:
    """The node's fully qualified name."""
    return f"{namespace.rstrip('/')}/{name}"


def expand_topic_name(topic_name: str, node_name: str, node_namespace: str) -> str:
    """The absolute form of a name as a node writes it.

    Raises:
        ValueError: the name breaks the rules.
    """
    try:
        return expand_name(topic_name, node=node_name, namespace=node_namespace)
    except InvalidTopicNameException as error:
        raise ValueError(str(error)) from error


def expand_name(name: str, *, node: str, namespace: str, is_service: bool = False) -> str:
    """The absolute form of a name as a node writes it.

    Raises:
        InvalidTopicNameException: the name breaks the rules (or its service twin).
    """
    validate_topic_name(name, is_service=is_service)
    # A substitution that does not exist leaves a character that no name may have.
    replaced = SUBSTITUTION.sub(
        lambda match: {"node": node, "ns": namespace, "namespace": namespace}.get(match[1], "{}"),
        name,
    )
    if replaced == "~" or replaced.startswith("~/"):
        full = full_node_name(namespace, node) + replaced[1:]
    elif replaced.startswith("/"):
        full = replaced
    else:
        full = f"{namespace.rstrip('/')}/{replaced}"
    if "{ns}" in name or "{namespace}" in name:
        full = full.replace("//", "/")
    validate_full_topic_name(full, is_service=is_service)
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


def _validate(
    name: str, rules: tuple[tuple[str, re.Pattern[str]], ...], *, is_service: bool
) -> Literal[True]:
    if broken := _broken(name, rules, MAX_TOPIC):
        error = InvalidServiceNameException if is_service else InvalidTopicNameException
        kind = "service" if is_service else "topic"
        raise error(name, f"{kind} name {broken[0]}", broken[1])
    return True


def _broken(
    name: str, rules: tuple[tuple[str, re.Pattern[str]], ...], limit: int
) -> tuple[str, int] | None:
    """The first rule that the name breaks and where, or None."""
    for text, pattern in rules:
        if found := pattern.search(name):
            return text, found.start()
    return (f"must not have more than {limit} characters", limit) if len(name) > limit else None
