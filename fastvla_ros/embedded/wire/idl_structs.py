"""Type descriptions built by the binding: slow, so `topic_types` keeps what comes of them."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from cyclonedds.idl import IdlStruct, make_idl_struct, types

from fastvla_ros.embedded.wire.fields import PLACEHOLDER, FieldType, Kind
from fastvla_ros.embedded.wire.typestore import TypeStore

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


def describe(store: TypeStore, name: str, *, with_header: bool) -> dict[str, Any]:
    """What the C layer needs to know about the type of a topic, as plain data.

    Args:
        with_header: A request or reply: the identity stands before the fields.
    """
    idl = _Structs(store).struct(name, with_header=with_header).__idl__
    idl.populate()
    idl.fill_type_data()
    return {
        "name": idl.idl_transformed_typename,
        "properties": int(idl.data_type_props),
        "versions": int(idl.supported_versions),
        "xtypes": [b64encode(part or b"").decode() for part in idl._xt_bytedata],
    }


def dds_type_name(name: str) -> str:
    """`pkg/msg/X` as `pkg.msg.dds_.X_`; the binding turns the dots into `::`."""
    package, kind, short = name.split("/")
    return f"{package}.{kind}.dds_.{short}_"


class _Structs:
    """The IdlStruct of a message and of those it is made of."""

    def __init__(self, store: TypeStore) -> None:
        self._store = store
        self._nested: dict[str, type[IdlStruct]] = {}

    def struct(self, name: str, *, with_header: bool) -> type[IdlStruct]:
        fields = dict(SERVICE_HEADER) if with_header else {}
        members = {n: self._field(d) for n, d in self._store.message(name).fields}
        fields |= members or {PLACEHOLDER: types.uint8}
        short = name.rpartition("/")[2]
        return make_idl_struct(f"{short}_", dds_type_name(name), fields)

    def _nested_struct(self, name: str) -> type[IdlStruct]:
        if name not in self._nested:
            self._nested[name] = self.struct(name, with_header=False)
        return self._nested[name]

    def _field(self, desc: FieldType) -> Any:
        kind, detail = desc
        if kind == Kind.BASE:
            name, bound = detail
            if name == "string":
                return types.bounded_str[bound] if bound else str
            return SCALARS[name]
        if kind == Kind.NAME:
            return self._nested_struct(detail)
        item, size = self._field(detail[0]), detail[1]
        if kind == Kind.ARRAY:
            return types.array[item, size]
        return types.sequence[item, size] if size else types.sequence[item]
