"""Looks message definitions up by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvla_core.errors import MessageError
from fastvla_ros.embedded.wire.fields import FieldType
from fastvla_ros.embedded.wire.file_cache import FileCache

# The packages that definitions and type descriptions come from.
MAKERS = ("rosbags.typesys", "cyclonedds.idl")


@dataclass(frozen=True, slots=True)
class MessageType:
    """One message: `name` is `package/msg/Name`, `package/srv/Name_Request` and so on."""

    name: str
    fields: tuple[tuple[str, FieldType], ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


class TypeStore:
    """Every interface of rosbags' Jazzy store and of some folders of texts."""

    def __init__(self, folders: list[Path]) -> None:
        """Index `folders`, each holding `<package>/{msg,srv,action}/<Name>.<kind>`.

        Raises:
            MessageError: one of the texts is malformed.
        """
        self._texts: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.glob("*/*/*")):
                if path.suffix[1:] == path.parent.name:
                    package = path.parent.parent.name
                    self._texts[f"{package}/{path.parent.name}/{path.stem}"] = path
        self.cache = FileCache.made_from(*MAKERS, files=self._texts.values())
        self._definitions: dict[str, Any] = self.cache.get("definitions", self._read)
        self._messages: dict[str, MessageType] = {}

    def names(self, package: str, kind: str) -> list[str]:
        """Names of the package's interfaces of one kind: "msg", "srv" or "action"."""
        prefix = f"{package}/{kind}/"
        # Services and actions are made of several messages and have texts.
        source = self._definitions if kind == "msg" else self._texts
        return sorted(name.removeprefix(prefix) for name in source if name.startswith(prefix))

    def packages(self) -> list[str]:
        """Every package that has an interface."""
        return sorted({name.split("/", maxsplit=1)[0] for name in self._definitions})

    def message(self, name: str) -> MessageType:
        """The definition of one message.

        Raises:
            MessageError: no package here has it.
        """
        if name not in self._messages:
            found = self._definition(name)
            self._messages[name] = MessageType(
                name,
                tuple((n, desc) for n, desc in found["fields"]),
                {n: as_python(kind, value) for n, kind, value in found["constants"]},
                found["defaults"],
            )
        return self._messages[name]

    def type_hash(self, name: str) -> str:
        """The RIHS01 hash that real nodes announce for the type (REP 2016).

        Raises:
            MessageError: no package here has it.
        """
        return self._definition(name)["hash"]

    def _definition(self, name: str) -> dict[str, Any]:
        if name not in self._definitions:
            raise MessageError(
                f"the embedded ROS runtime has no type '{name}'",
                mend="add its text below fastvla_ros/embedded/interfaces, or use real ROS 2",
            )
        return self._definitions[name]

    def _read(self) -> dict[str, Any]:
        # Late, because it imports rosbags.
        from fastvla_ros.embedded.wire.definitions import read_definitions

        return read_definitions(self._texts)


def as_python(kind: str, value: Any) -> Any:
    """A constant as rclpy gives it: `byte` is a bytes object of length one."""
    return bytes([value & 0xFF]) if kind == "byte" else value
