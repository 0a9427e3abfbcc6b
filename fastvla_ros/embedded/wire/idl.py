"""CycloneDDS type descriptions, because its C layer checks sample bytes against the type."""

from __future__ import annotations

from typing import Any

from cyclonedds.idl import IdlStruct, make_idl_struct, types
from rosbags.interfaces import Nodetype

from fastvla_ros.embedded.wire.typestore import PLACEHOLDER, FieldType, TypeStore

# The request identity that stands before the fields of every request and reply.
SERVICE_HEADER = {"_guid": types.uint64, "_sequence": types.int64}

SCALARS: dict[str, Any] = {
    "bool": bool,
    "byte": types.byte,
    "int8": types.int8,
    "uint8": types.uint8,
    "int16": types.int16,
    "uint16": types.uint16,
    "int32": types.int32,
    "uint32": types.uint32,
    "int64": types.int64,
    "uint64": types.uint64,
    "float32": types.float32,
    "float64": types.float64,
}


def dds_type_name(name: str) -> str:
    """`pkg/msg/X` as `pkg.msg.dds_.X_`; the binding turns the dots into `::`."""
    package, kind, short = name.split("/")
    return f"{package}.{kind}.dds_.{short}_"


class IdlTypes:
    """Builds each description once: two topics of one type must share it."""

    def __init__(self, store: TypeStore) -> None:
        self._store = store
        self._structs: dict[tuple[str, bool], type[IdlStruct]] = {}

    def topic_type(self, name: str) -> type[IdlStruct]:
        """The type of a plain topic."""
        return self._struct(name, with_header=False)

    def service_type(self, name: str) -> type[IdlStruct]:
        """The type of a request or reply, with the identity before the fields."""
        return self._struct(name, with_header=True)

    def _struct(self, name: str, *, with_header: bool) -> type[IdlStruct]:
        key = (name, with_header)
        if key not in self._structs:
            fields = dict(SERVICE_HEADER) if with_header else {}
            fields |= {n: self._field(d) for n, d in self._store.message(name).fields}
            if len(fields) == (len(SERVICE_HEADER) if with_header else 0):
                fields[PLACEHOLDER] = types.uint8
            short = name.rpartition("/")[2]
            self._structs[key] = make_idl_struct(f"{short}_", dds_type_name(name), fields)
        return self._structs[key]

    def _field(self, desc: FieldType) -> Any:
        kind, detail = desc
        if kind == Nodetype.BASE:
            name, bound = detail
            if name == "string":
                return types.bounded_str[bound] if bound else str
            return SCALARS[name]
        if kind == Nodetype.NAME:
            return self._struct(detail, with_header=False)
        item, size = self._field(detail[0]), detail[1]
        if kind == Nodetype.ARRAY:
            return types.array[item, size]
        return types.sequence[item, size] if size else types.sequence[item]
