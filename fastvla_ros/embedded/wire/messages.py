"""Python classes for messages, services and actions, with rclpy's names and habits."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from fastvla_core.errors import MessageError
from fastvla_ros.embedded.wire import cdr
from fastvla_ros.embedded.wire.coerce import field_coercion, field_default, is_ndarray
from fastvla_ros.embedded.wire.fields import FieldType, Kind
from fastvla_ros.embedded.wire.typestore import MessageType, TypeStore

_M = TypeVar("_M", bound="Message")

# The names of rclpy's get_fields_and_field_types(), where they differ from ours.
IDL_NAMES = {"bool": "boolean", "byte": "octet", "float32": "float", "float64": "double"}


class Message:
    """Base of all message classes; fields are properties that check what is assigned."""

    __slots__ = ()
    _definition: ClassVar[MessageType]
    _defaults: ClassVar[dict[str, Callable[[], Any]]]

    def __init__(self, **fields: Any) -> None:
        """Set the given fields, and the others to their defaults.

        Raises:
            MessageError: an unknown field, or a value of the wrong type.
        """
        defaults = self._defaults
        for name in fields:
            if name not in defaults:
                raise MessageError(
                    f"{self._definition.name} has no field '{name}'",
                    mend=f"its fields are {', '.join(defaults)}",
                )
        for name, default in defaults.items():
            setattr(self, name, fields[name] if name in fields else default())

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        """Field names and their IDL types."""
        return {name: idl_type(desc) for name, desc in cls._definition.fields}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, n), getattr(other, n)) for n in self._defaults)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        package, kind, _ = self._definition.name.split("/")
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._defaults)
        return f"{package}.{kind}.{type(self).__name__}({values})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), bytes(serialize(self)))


def _rebuild(cls: type[_M], data: bytes) -> _M:
    return deserialize(data, cls)


def _same(left: Any, right: Any) -> bool:
    if is_ndarray(left) or is_ndarray(right):
        import numpy as np

        return bool(np.array_equal(left, right))
    return left == right


def idl_type(desc: FieldType) -> str:
    """The name that rclpy shows for a field type, such as `sequence<double>`."""
    kind, detail = desc
    if kind == Kind.BASE:
        name, bound = detail
        return f"string<{bound}>" if bound else str(IDL_NAMES.get(name, name))
    if kind == Kind.NAME:
        package, _, name = detail.split("/")
        return f"{package}/{name}"
    item, size = detail
    if kind == Kind.ARRAY:
        return f"{idl_type(item)}[{size}]"
    return f"sequence<{idl_type(item)}, {size}>" if size else f"sequence<{idl_type(item)}>"


class MessageFactory:
    """Makes each class once, when it is first asked for."""

    def __init__(self, store: TypeStore) -> None:
        self.store = store
        self._classes: dict[str, type[Message]] = {}
        self._interfaces: dict[str, type] = {}

    def message(self, name: str) -> type[Message]:
        """The class of `package/msg/Name` (or of a part of a service or an action)."""
        if name not in self._classes:
            self._classes[name] = self._build(self.store.message(name))
        return self._classes[name]

    def service(self, name: str) -> type:
        """The class of `package/srv/Name`, which holds Request and Response."""
        parts = {part: self.message(f"{name}_{part}") for part in ("Request", "Response")}
        return self._interface(name, parts)

    def action(self, name: str) -> type:
        """The class of `package/action/Name`: Goal, Result, Feedback and Impl."""
        parts: dict[str, Any] = {
            part: self.message(f"{name}_{part}") for part in ("Goal", "Result", "Feedback")
        }
        implementation = {
            "SendGoalService": self.service(f"{name}_SendGoal"),
            "GetResultService": self.service(f"{name}_GetResult"),
            "FeedbackMessage": self.message(f"{name}_FeedbackMessage"),
            "CancelGoalService": self.service("action_msgs/srv/CancelGoal"),
            "GoalStatusMessage": self.message("action_msgs/msg/GoalStatusArray"),
        }
        parts["Impl"] = type(f"{name.split('/')[2]}Impl", (), implementation)
        return self._interface(name, parts)

    def interface(self, name: str) -> type:
        """The class of any `package/kind/Name`."""
        makers = {"msg": self.message, "srv": self.service, "action": self.action}
        return makers[name.split("/")[1]](name)

    def _interface(self, name: str, parts: dict[str, Any]) -> type:
        if name not in self._interfaces:
            package, kind, short = name.split("/")
            body = {**parts, "interface_name": name, "__module__": f"{package}.{kind}"}
            self._interfaces[name] = type(short, (), body)
        return self._interfaces[name]

    def _build(self, definition: MessageType) -> type[Message]:
        package, kind, short = definition.name.split("/")
        names = [name for name, _ in definition.fields]
        body: dict[str, Any] = {
            "__slots__": tuple(f"_{name}" for name in names),
            "__module__": f"{package}.{kind}",
            "__qualname__": short.replace("_", ".") if kind != "msg" else short,
            "_definition": definition,
            **definition.constants,
        }
        cls = type(short, (Message,), body)
        self._add_fields(cls, definition)
        return cls

    def _add_fields(self, cls: type[Message], definition: MessageType) -> None:
        cls._defaults = {}
        for name, desc in definition.fields:
            member = cls.__dict__[f"_{name}"]
            coerce = field_coercion(desc, self.message)
            setattr(cls, name, _property(definition.name, name, member, coerce))
            default = field_default(desc, self.message)
            if name in definition.defaults:
                default = _constant(coerce, definition.defaults[name])
            cls._defaults[name] = default
        codecs = {n: cdr.field_codec(d, self._codec) for n, d in definition.fields}
        cls._write, cls._read = _struct_codec(cls, codecs)  # type: ignore[attr-defined]

    def _codec(self, name: str) -> cdr.Codec:
        cls: Any = self.message(name)
        return cls._write, cls._read


def _constant(coerce: Callable[[Any], Any], value: Any) -> Callable[[], Any]:
    return lambda: coerce(value)


def _property(owner: str, name: str, member: Any, coerce: Callable[[Any], Any]) -> property:
    store = member.__set__

    def assign(self: Message, value: Any) -> None:
        try:
            store(self, coerce(value))
        except (MessageError, TypeError, OverflowError, ValueError) as error:
            raise MessageError(f"{owner}.{name}: {error}") from None

    return property(member.__get__, assign)


def _struct_codec(cls: type[Message], codecs: dict[str, cdr.Codec]) -> cdr.Codec:
    """The codec of a message: its fields in order, or one octet when it has none."""
    writers = [(cls.__dict__[f"_{n}"].__get__, write) for n, (write, _) in codecs.items()]
    readers = [(cls.__dict__[f"_{n}"].__set__, read) for n, (_, read) in codecs.items()]
    new = object.__new__

    def write(buffer: bytearray, message: Message) -> None:
        for get, write_field in writers:
            write_field(buffer, get(message))
        if not writers:
            buffer += b"\x00"

    def read(data: memoryview, pos: int) -> tuple[Message, int]:
        message = new(cls)
        for assign, read_field in readers:
            value, pos = read_field(data, pos)
            assign(message, value)
        return message, pos if readers else pos + 1

    return staticmethod(write), staticmethod(read)  # type: ignore[return-value]


def serialize(message: Message, *, header: bytes = b"") -> bytearray:
    """CDR bytes with encapsulation header; `header` stands in the body before the fields.

    Raises:
        MessageError: a value does not fit (a float64 beyond float32, for example).
    """
    buffer = bytearray(cdr.HEADER)
    buffer += header
    try:
        type(message)._write(buffer, message)  # type: ignore[attr-defined]
    except (struct.error, OverflowError, AttributeError, TypeError) as error:
        raise MessageError(f"cannot serialise {message._definition.name}: {error}") from error
    return buffer


def deserialize(data: bytes | memoryview, cls: type[_M], *, skip: int = 0) -> _M:
    """Read a message from CDR bytes; octet sequences are views of `data`, not copies.

    Args:
        skip: Bytes of the body before the fields (a service header).
    Raises:
        MessageError: the bytes are not this type in little-endian CDR.
    """
    try:
        message, _ = cls._read(cdr.body(data), skip)  # type: ignore[attr-defined]
    except (struct.error, UnicodeDecodeError, MessageError) as error:
        raise MessageError(f"cannot read {cls._definition.name}: {error}") from error
    return message
