"""The types of topics as CycloneDDS wants them: its C layer checks sample bytes against them."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import Any

from fastvla_ros.embedded.wire.typestore import TypeStore


@dataclass(frozen=True, slots=True)
class TopicType:
    """What the binding's `Topic` asks of an IdlStruct, without the machinery behind it.

    Building that takes some milliseconds per type, and a node has more than a dozen topics.
    """

    idl_transformed_typename: str
    data_type_props: int
    supported_versions: int
    # XTypes' TypeInformation and TypeMapping, serialised.
    _xt_bytedata: tuple[bytes, bytes]

    @property
    def __idl__(self) -> TopicType:
        return self

    def populate(self) -> None:
        """Nothing is left to do."""

    def fill_type_data(self) -> None:
        """Nothing is left to do."""


class TopicTypes:
    """Describes each type once: two topics of one type must share it."""

    def __init__(self, store: TypeStore) -> None:
        self._store = store
        self._known: dict[tuple[str, bool], TopicType] = {}

    def plain(self, name: str) -> TopicType:
        """The type of a topic of messages."""
        return self._topic_type(name, with_header=False)

    def service(self, name: str) -> TopicType:
        """The type of a request or reply, with the identity before the fields."""
        return self._topic_type(name, with_header=True)

    def _topic_type(self, name: str, *, with_header: bool) -> TopicType:
        key = (name, with_header)
        if key not in self._known:
            file = name.replace("/", "-") + ("-with-header" if with_header else "")
            found = self._store.cache.get(file, lambda: self._describe(name, with_header))
            info, mapping = (b64decode(text) for text in found["xtypes"])
            self._known[key] = TopicType(
                found["name"], found["properties"], found["versions"], (info, mapping)
            )
        return self._known[key]

    def _describe(self, name: str, with_header: bool) -> dict[str, Any]:
        # The binding is imported only for a type that no start has described yet.
        from fastvla_ros.embedded.wire.idl_structs import describe

        return describe(self._store, name, with_header=with_header)
