"""Message definitions: rosbags' Jazzy store, and the .msg, .srv and .action texts it lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.base import Message, create_field_desc
from rosbags.typesys.msg import MSGParser

from fastvla_core.errors import MessageError

# (Nodetype.BASE, (name, bound)), (Nodetype.NAME, type), or (Nodetype.ARRAY or SEQUENCE,
# (item, size)).
FieldType = Any

PLACEHOLDER = "structure_needs_at_least_one_member"
SERVICE_PARTS = ("Request", "Response")
ACTION_PARTS = ("Goal", "Result", "Feedback")

# rosbags' stores drop default values; this is the only type of the common packages that has any.
STORE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"geometry_msgs/msg/Quaternion": {"w": 1.0}}


@dataclass(frozen=True, slots=True)
class MessageType:
    """One message: `name` is `package/msg/Name`, `package/srv/Name_Request` and so on."""

    name: str
    fields: tuple[tuple[str, FieldType], ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


def _base(name: str) -> FieldType:
    return (Nodetype.BASE, (name, 0))


def _named(name: str) -> FieldType:
    return (Nodetype.NAME, name)


def char_as_uint8(desc: FieldType) -> FieldType:
    """ROS 2 maps `char` to uint8, in the hash too; rosbags hashes it as an 8-bit character."""
    kind, detail = desc
    if kind == Nodetype.BASE:
        return _base("uint8") if detail[0] == "char" else desc
    if kind == Nodetype.NAME:
        return desc
    return (kind, (char_as_uint8(detail[0]), detail[1]))


class TypeStore:
    """Looks message types up by name; texts are parsed when they are first asked for."""

    def __init__(self, folders: list[Path]) -> None:
        """Index `folders`, each holding `<package>/{msg,srv,action}/<Name>.<kind>`."""
        self._rosbags = get_typestore(Stores.ROS2_JAZZY)
        self._messages: dict[str, MessageType] = {}
        self._texts: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.glob("*/*/*")):
                if path.suffix[1:] == path.parent.name:
                    package = path.parent.parent.name
                    self._texts[f"{package}/{path.parent.name}/{path.stem}"] = path
        for name in list(self._rosbags.fielddefs):
            self._register_from_rosbags(name)

    def names(self, package: str, kind: str) -> list[str]:
        """Names of the package's interfaces of one kind: "msg", "srv" or "action"."""
        prefix = f"{package}/{kind}/"
        known = {name for name in self._texts if name.startswith(prefix)}
        if kind == "msg":
            known |= {name for name in self._messages if name.startswith(prefix)}
        return sorted(name.removeprefix(prefix) for name in known)

    def packages(self) -> list[str]:
        """Every package that has an interface."""
        return sorted({name.split("/")[0] for name in (*self._texts, *self._messages)})

    def message(self, name: str) -> MessageType:
        """The definition of one message.

        Raises:
            MessageError: no package here has it.
        """
        if name not in self._messages:
            self._parse(name)
        return self._messages[name]

    def type_hash(self, name: str) -> str:
        """The RIHS01 hash that real nodes announce for the type (REP 2016)."""
        for needed in self._closure(name):
            definition = self.message(needed)
            self._rosbags.fielddefs[needed] = ([], list(definition.fields))
        return self._rosbags.hash_rihs01(name)

    def _closure(self, name: str) -> set[str]:
        found: set[str] = set()
        pending = [name]
        while pending:
            current = pending.pop()
            if current not in found:
                found.add(current)
                pending += [n for _, d in self.message(current).fields for n in nested_names(d)]
        return found

    def _register_from_rosbags(self, name: str) -> None:
        constants, fields = self._rosbags.fielddefs[name]
        self._messages[name] = MessageType(
            name,
            tuple((n, char_as_uint8(d)) for n, d in fields if n != PLACEHOLDER),
            {n: as_python(kind, value) for n, kind, value in constants},
            STORE_DEFAULTS.get(name, {}),
        )

    def _parse(self, name: str) -> None:
        """Register every message of the text that defines `name`."""
        package, _, short = name.split("/")
        stem = short.split("_")[0]
        for kind, parts in (("msg", ("",)), ("srv", SERVICE_PARTS), ("action", ACTION_PARTS)):
            path = self._texts.get(f"{package}/{kind}/{stem}")
            if path is not None and name.split("/")[1] == kind:
                base = f"{package}/{kind}/{stem}"
                texts = split_sections(path.read_text(encoding="utf-8"), len(parts), path)
                for part, text in zip(parts, texts, strict=True):
                    full = f"{base}_{part}" if part else base
                    self._messages[full] = parse_message(full, text)
                if kind == "action":
                    self._messages.update((m.name, m) for m in action_messages(base))
        if name not in self._messages:
            raise MessageError(
                f"the embedded ROS runtime has no type '{name}'",
                mend="add its text below fastvla_ros/embedded/interfaces, or use real ROS 2",
            )


def nested_names(desc: FieldType) -> Iterator[str]:
    """The message type that a field refers to, if it does."""
    kind, detail = desc
    if kind == Nodetype.NAME:
        yield detail
    elif kind != Nodetype.BASE:
        yield from nested_names(detail[0])


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


def parse_message(name: str, text: str) -> MessageType:
    """Parse one section.

    rosbags resolves a bare type name to the folder of the owner, which is right for `msg` only,
    so every text is parsed as if it stood there.
    """
    package = name.split("/", maxsplit=1)[0]
    (message,) = MSGParser(f"MSG: {package}/msg/Parsed\n{text}").specification()
    return MessageType(
        name,
        tuple((f.name, char_as_uint8(create_field_desc(f.typ))) for f in message.fields),
        {c.name: as_python(c.typ.value, c.value) for c in message.constants},
        _defaults(message),
    )


def _defaults(message: Message) -> dict[str, Any]:
    return {f.name: f.value for f in message.fields if f.value is not None}


def as_python(kind: str, value: Any) -> Any:
    """A constant as rclpy gives it: `byte` is a bytes object of length one."""
    return bytes([value & 0xFF]) if kind == "byte" else value


def action_messages(base: str) -> list[MessageType]:
    """The messages that every action adds to its goal, result and feedback."""
    goal_id = ("goal_id", _named("unique_identifier_msgs/msg/UUID"))
    stamp = ("stamp", _named("builtin_interfaces/msg/Time"))
    return [
        MessageType(f"{base}_SendGoal_Request", (goal_id, ("goal", _named(f"{base}_Goal")))),
        MessageType(f"{base}_SendGoal_Response", (("accepted", _base("bool")), stamp)),
        MessageType(f"{base}_GetResult_Request", (goal_id,)),
        MessageType(
            f"{base}_GetResult_Response",
            (("status", _base("int8")), ("result", _named(f"{base}_Result"))),
        ),
        MessageType(f"{base}_FeedbackMessage", (goal_id, ("feedback", _named(f"{base}_Feedback")))),
    ]
