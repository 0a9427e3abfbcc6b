"""Message types of one recording: what it defines itself, the standard ones, `.msg` folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from fastvla_core.bags.definitions import typestore
from fastvla_core.errors import BagError, MessageError
from training.bags.messages import from_cdr
from training.bags.storage import TypeDefinition


class TypeLibrary:
    """Parses messages by the definition that was recorded with them.

    A definition in the recording comes before the standard one, because messages change between
    ROS releases; what neither has is looked for in the folders.

    Args:
        definitions: Type name to what the recording says.
        folders: With `PACKAGE/msg/NAME.msg` files below them.

    Raises:
        BagError: a folder is missing or holds a definition that cannot be read.
    """

    def __init__(
        self, definitions: Mapping[str, TypeDefinition], *, folders: Sequence[Path] = ()
    ) -> None:
        self._definitions = definitions
        self._added = _with_folders(folders) if folders else typestore()
        self._stores: dict[str, Typestore | None] = {}

    def knows(self, type_name: str) -> bool:
        """Whether messages of that type can be parsed."""
        return self._store(type_name) is not None

    def parse(self, data: bytes | memoryview, type_name: str) -> Any:
        """Deserialise one message; large fields are read-only views of `data`.

        Raises:
            MessageError: the bytes are not a message of that type, or the type is not defined.
        """
        store = self._store(type_name)
        if store is None:
            raise MessageError(
                f"the type {type_name} is not defined in the recording",
                mend="give the folder of its package's .msg files: `--msgs FOLDER`",
            )
        return from_cdr(data, type_name=type_name, store=store)

    def _store(self, type_name: str) -> Typestore | None:
        if type_name not in self._stores:
            self._stores[type_name] = self._find(type_name)
        return self._stores[type_name]

    def _find(self, type_name: str) -> Typestore | None:
        recorded = self._definitions.get(type_name)
        own = _parsed(recorded, type_name) if recorded and recorded.text.strip() else {}
        base = self._added
        if type_name in own and any(_differs(base, n, own[n]) for n in own):
            store = get_typestore(Stores.EMPTY)
            try:
                store.register(own)
                # Code for a type is made when it is first used; a missing part shows there.
                store.get_msgdef(type_name)
            except Exception:  # whatever a damaged definition makes the generator do
                return base if type_name in base.fielddefs else None
            return store
        return base if type_name in base.fielddefs else None


def _differs(store: Typestore, name: str, found: Any) -> bool:
    # The constants of a definition do not matter to its bytes.
    return name not in store.fielddefs or store.fielddefs[name][1] != found[1]


def _parsed(definition: TypeDefinition, type_name: str) -> dict[str, Any]:
    try:
        if definition.format == "ros2idl":
            return dict(get_types_from_idl(definition.text))
        # The parser knows names of messages only; parts of services and actions are none.
        package, *_, short = type_name.split("/")
        found = dict(get_types_from_msg(definition.text, f"{package}/msg/{short}"))
        return {type_name: found.pop(f"{package}/msg/{short}"), **found}
    except Exception:  # a damaged definition; the standard one may still serve
        return {}


def _with_folders(folders: Sequence[Path]) -> Typestore:
    """The standard types and those of `.msg` files below the folders."""
    store = get_typestore(Stores.EMPTY)
    known = typestore()
    store.fielddefs.update(known.fielddefs)
    store.types.update(known.types)
    found: dict[str, Any] = {}
    for folder in folders:
        if not folder.is_dir():
            raise BagError(f"{folder}: is no folder of .msg files", mend="check --msgs")
        for file in sorted(folder.rglob("*.msg")):
            package = file.parent.parent if file.parent.name == "msg" else file.parent
            name = f"{package.name}/msg/{file.stem}"
            try:
                types = get_types_from_msg(file.read_text(encoding="utf-8"), name)
            except Exception as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise BagError(
                    f"{file}: is no message definition ({reason})", mend="correct or remove it"
                ) from error
            found.update({key: value for key, value in types.items() if key not in store.fielddefs})
    if found:
        store.register(found)
    return store
