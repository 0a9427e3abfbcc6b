"""Every message definition there is: rosbags' Jazzy store, and the texts that it lacks.

This is what needs rosbags, whose import takes longer than that of rclpy; `typestore` keeps the
outcome in a file and comes here when there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.base import Message, create_field_desc
from rosbags.typesys.msg import MSGParser
from rosbags.typesys.store import Typestore

from fastvla_core.errors import MessageError
from fastvla_ros.embedded.wire.fields import PLACEHOLDER, FieldType, Kind

SERVICE_PARTS = ("Request", "Response")
ACTION_PARTS = ("Goal", "Result", "Feedback")
PARTS = {"msg": ("",), "srv": SERVICE_PARTS, "action": ACTION_PARTS}

# rosbags' stores drop default values; this is the only type of the common packages that has any.
STORE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"geometry_msgs/msg/Quaternion": {"w": 1.0}}

# fields: (name, type); constants: (name, kind, value); defaults: by name; hash: RIHS01 (REP 2016).
Definition = dict[str, Any]


def read_definitions(texts: Mapping[str, Path]) -> dict[str, Definition]:
    """Definitions by name, `package/msg/Name`, `package/srv/Name_Request` and so on; plain data.

    Args:
        texts: Files of the interfaces that rosbags lacks, by `package/kind/Name`.
    Raises:
        MessageError: a text has the wrong number of sections.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    found = {name: _from_rosbags(store, name) for name in store.fielddefs}
    for base, path in texts.items():
        found |= parse_interface(base, path)
    for name, definition in found.items():
        store.fielddefs[name] = ([], definition["fields"])
    for name, definition in found.items():
        definition["hash"] = store.hash_rihs01(name)
    return found


def parse_interface(base: str, path: Path) -> dict[str, Definition]:
    """The messages of one text.

    Raises:
        MessageError: it has the wrong number of sections.
    """
    kind = base.split("/")[1]
    parts = PARTS[kind]
    texts = split_sections(path.read_text(encoding="utf-8"), len(parts), path)
    found = {
        f"{base}_{part}" if part else base: parse_message(base, text)
        for part, text in zip(parts, texts, strict=True)
    }
    return found | action_messages(base) if kind == "action" else found


def char_as_uint8(desc: FieldType) -> FieldType:
    """ROS 2 maps `char` to uint8, in the hash too; rosbags hashes it as an 8-bit character."""
    kind, detail = desc
    if kind == Kind.BASE:
        return _base("uint8") if detail[0] == "char" else desc
    if kind == Kind.NAME:
        return desc
    return (kind, (char_as_uint8(detail[0]), detail[1]))


def split_sections(text: str, count: int, path: Path) -> list[str]:
    """Split an interface text at its `---` lines."""
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip() == "---":
            sections.append([])
        else:
            sections[-1].append(line)
    if len(sections) != count:
        raise MessageError(f"{path} has {len(sections)} sections", mend=f"it needs {count}")
    return ["\n".join(lines) + "\n" for lines in sections]


def parse_message(owner: str, text: str) -> Definition:
    """Parse one section of the interface `owner`.

    rosbags resolves a bare type name to the folder of the owner, which is right for `msg` only,
    so every text is parsed as if it stood there.
    """
    package = owner.split("/", maxsplit=1)[0]
    (message,) = MSGParser(f"MSG: {package}/msg/Parsed\n{text}").specification()
    return {
        "fields": [(f.name, char_as_uint8(create_field_desc(f.typ))) for f in message.fields],
        "constants": [(c.name, c.typ.value, c.value) for c in message.constants],
        "defaults": _defaults(message),
    }


def action_messages(base: str) -> dict[str, Definition]:
    """The messages that every action adds to its goal, result and feedback."""
    goal_id = ("goal_id", _named("unique_identifier_msgs/msg/UUID"))
    stamp = ("stamp", _named("builtin_interfaces/msg/Time"))
    fields = {
        "SendGoal_Request": [goal_id, ("goal", _named(f"{base}_Goal"))],
        "SendGoal_Response": [("accepted", _base("bool")), stamp],
        "GetResult_Request": [goal_id],
        "GetResult_Response": [("status", _base("int8")), ("result", _named(f"{base}_Result"))],
        "FeedbackMessage": [goal_id, ("feedback", _named(f"{base}_Feedback"))],
    }
    return {
        f"{base}_{part}": {"fields": members, "constants": [], "defaults": {}}
        for part, members in fields.items()
    }


def _from_rosbags(store: Typestore, name: str) -> Definition:
    constants, fields = store.fielddefs[name]
    return {
        "fields": [(n, char_as_uint8(d)) for n, d in fields if n != PLACEHOLDER],
        "constants": list(constants),
        "defaults": dict(STORE_DEFAULTS.get(name, {})),
    }


def _defaults(message: Message) -> dict[str, Any]:
    return {f.name: f.value for f in message.fields if f.value is not None}


def _base(name: str) -> FieldType:
    return (Kind.BASE, (name, 0))


def _named(name: str) -> FieldType:
    return (Kind.NAME, name)
