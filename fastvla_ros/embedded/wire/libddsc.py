"""libddsc of the cyclonedds wheel through ctypes: its functions, its structs, its codes.

The wheel's Python package is left alone: importing it takes 0.15 s, its serialiser takes 20 ms for
an image, and its `write` holds the GIL, so that a stopped reliable reader would freeze the process.
Of its extension module one function is used: `ddspy_topic_create` makes topics whose samples are
bytes (a `Container` to write, references of serialised data to take).
Source: dds/dds.h and dds/ddsi/ddsi_serdata.h of CycloneDDS 11.0.1.
"""

from __future__ import annotations

import ctypes as ct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from fastvla_core.errors import DependencyError, RosError

# The version whose structs and functions these are.
MEND = "pip install cyclonedds==11.0.1"
# Bad parameter, already deleted: what a call with a deleted entity gives.
ALREADY_DELETED = (-3, -9)
TIMEOUT = -10
INFINITE_NS = 2**63 - 1
# dds_public_impl.h: every sample, view and instance state; an instance that is alive.
ANY_STATE, ALIVE = 127, 16

_ENTITY, _POINTER, _SIZE = ct.c_int32, ct.c_void_p, ct.c_size_t
_CODE, _KIND, _NS, _HANDLE = ct.c_int32, ct.c_int, ct.c_int64, ct.c_uint64
_CALLS: dict[str, tuple[list[Any], Any]] = {
    "dds_assert_liveliness": ([_ENTITY], _CODE),
    "dds_builtintopic_free_endpoint": ([_POINTER], None),
    "dds_create_domain": ([ct.c_uint32, ct.c_char_p], _ENTITY),
    "dds_create_guardcondition": ([_ENTITY], _ENTITY),
    "dds_create_participant": ([ct.c_uint32, _POINTER, _POINTER], _ENTITY),
    "dds_create_publisher": ([_ENTITY, _POINTER, _POINTER], _ENTITY),
    "dds_create_qos": ([], _POINTER),
    "dds_create_reader": ([_ENTITY, _ENTITY, _POINTER, _POINTER], _ENTITY),
    "dds_create_subscriber": ([_ENTITY, _POINTER, _POINTER], _ENTITY),
    "dds_create_waitset": ([_ENTITY], _ENTITY),
    "dds_create_writer": ([_ENTITY, _ENTITY, _POINTER, _POINTER], _ENTITY),
    "dds_delete": ([_ENTITY], _CODE),
    "dds_delete_qos": ([_POINTER], None),
    "dds_free": ([_POINTER], None),
    "dds_get_guid": ([_ENTITY, _POINTER], _CODE),
    "dds_get_instance_handle": ([_ENTITY, _POINTER], _CODE),
    "dds_get_matched_publication_data": ([_ENTITY, _HANDLE], _POINTER),
    "dds_get_matched_publications": ([_ENTITY, _POINTER, _SIZE], _CODE),
    "dds_get_matched_subscription_data": ([_ENTITY, _HANDLE], _POINTER),
    "dds_get_matched_subscriptions": ([_ENTITY, _POINTER, _SIZE], _CODE),
    "dds_qget_deadline": ([_POINTER, _POINTER], ct.c_bool),
    "dds_qget_durability": ([_POINTER, _POINTER], ct.c_bool),
    "dds_qget_lifespan": ([_POINTER, _POINTER], ct.c_bool),
    "dds_qget_liveliness": ([_POINTER, _POINTER, _POINTER], ct.c_bool),
    "dds_qget_reliability": ([_POINTER, _POINTER, _POINTER], ct.c_bool),
    "dds_qget_userdata": ([_POINTER, _POINTER, _POINTER], ct.c_bool),
    "dds_qset_data_representation": ([_POINTER, ct.c_uint32, _POINTER], None),
    "dds_qset_deadline": ([_POINTER, _NS], None),
    "dds_qset_durability": ([_POINTER, _KIND], None),
    "dds_qset_durability_service": ([_POINTER, _NS, _KIND, *[ct.c_int32] * 4], None),
    "dds_qset_history": ([_POINTER, _KIND, ct.c_int32], None),
    "dds_qset_ignorelocal": ([_POINTER, _KIND], None),
    "dds_qset_lifespan": ([_POINTER, _NS], None),
    "dds_qset_liveliness": ([_POINTER, _KIND, _NS], None),
    "dds_qset_reliability": ([_POINTER, _KIND, _NS], None),
    "dds_qset_userdata": ([_POINTER, ct.c_char_p, _SIZE], None),
    "dds_qset_writer_data_lifecycle": ([_POINTER, ct.c_bool], None),
    "dds_return_loan": ([_ENTITY, _POINTER, ct.c_int32], _CODE),
    "dds_set_guardcondition": ([_ENTITY, ct.c_bool], _CODE),
    "dds_set_status_mask": ([_ENTITY, ct.c_uint32], _CODE),
    "dds_take": ([_ENTITY, _POINTER, _POINTER, _SIZE, ct.c_uint32], _CODE),
    "dds_wait_for_acks": ([_ENTITY, _NS], _CODE),
    "dds_waitset_attach": ([_ENTITY, _ENTITY, ct.c_ssize_t], _CODE),
    "dds_waitset_detach": ([_ENTITY, _ENTITY], _CODE),
    "dds_waitset_wait": ([_ENTITY, _POINTER, _SIZE, _NS], _CODE),
    "dds_write": ([_ENTITY, _POINTER], _CODE),
} | {
    f"dds_get_{status}_status": ([_ENTITY, _POINTER], _CODE)
    for status in (
        "liveliness_changed",
        "liveliness_lost",
        "offered_deadline_missed",
        "offered_incompatible_qos",
        "publication_matched",
        "requested_deadline_missed",
        "requested_incompatible_qos",
        "sample_lost",
        "subscription_matched",
    )
}
# They wait for nothing, so they keep the GIL: to give it away for a microsecond may cost the five
# milliseconds for which another thread then has it.
_QUICK_CALLS: dict[str, tuple[list[Any], Any]] = {
    "dds_take_status": ([_ENTITY, _POINTER, ct.c_uint32], _CODE),
    "dds_takecdr": ([_ENTITY, _POINTER, ct.c_uint32, _POINTER, ct.c_uint32], _CODE),
    "ddsi_serdata_size": ([_POINTER], ct.c_uint32),
    "ddsi_serdata_to_ser": ([_POINTER, _SIZE, _SIZE, _POINTER], None),
    "ddsi_serdata_to_ser_ref": ([_POINTER, _SIZE, _SIZE, _POINTER], _POINTER),
    "ddsi_serdata_to_ser_unref": ([_POINTER, _POINTER], None),
    "ddsi_serdata_unref": ([_POINTER], None),
}


class Container(ct.Structure):
    """A sample to write, as the extension module's types see it: serialised bytes."""

    _fields_ = [("data", _POINTER), ("size", _SIZE)]


class SampleInfo(ct.Structure):
    """dds_sample_info_t."""

    _fields_ = [
        ("sample_state", _KIND),
        ("view_state", _KIND),
        ("instance_state", _KIND),
        ("valid_data", ct.c_bool),
        ("source_timestamp", _NS),
        ("instance_handle", _HANDLE),
        ("publication_handle", _HANDLE),
        ("ranks", ct.c_uint32 * 5),
    ]


class IoVector(ct.Structure):
    """ddsrt_iovec_t."""

    _fields_ = [("base", _POINTER), ("length", _SIZE)]


def check(code: int, what: str) -> int:
    """Raise RosError when a C call returned an error code."""
    if code < 0:
        raise RosError(f"CycloneDDS: {what} failed with code {code}")
    return code


@cache
def library() -> ct.CDLL:
    """The calls that may wait; the GIL is released meanwhile."""
    return _with_signatures(ct.CDLL(str(_library_path())), _CALLS)


@cache
def quick_calls() -> ct.PyDLL:
    """The calls that take what is there, and those on serialised data."""
    return _with_signatures(ct.PyDLL(str(_library_path())), _QUICK_CALLS)


@cache
def topic_factory() -> Callable[[int, str, Any, None, None], int]:
    """The extension module's `ddspy_topic_create(participant, name, type, None, None)`."""
    name = "cyclonedds._clayer"
    module = sys.modules.get(name)
    if module is None:
        spec = PathFinder.find_spec(name, [str(_package_folder())])
        if spec is None or spec.loader is None:
            raise DependencyError("the installed cyclonedds has no C layer", mend=MEND)
        with _stand_ins():
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
    return module.ddspy_topic_create


@contextmanager
def _stand_ins() -> Iterator[None]:
    """While it is loaded, the extension asks for a class, and would import the whole package."""
    internal = "cyclonedds.internal"
    missing = [name for name in ("cyclonedds", internal) if name not in sys.modules]
    sys.modules.update({name: ModuleType(name) for name in missing})
    if internal in missing:
        # For those who use the package in this process too.
        make = {"SampleInfo": lambda *fields: import_module(internal).SampleInfo(*fields)}
        sys.modules[internal].__dict__.update(make)
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def _with_signatures(lib: Any, calls: dict[str, tuple[list[Any], Any]]) -> Any:
    for name, (arguments, result) in calls.items():
        function = getattr(lib, name)
        function.argtypes, function.restype = arguments, result
    return lib


def _package_folder() -> Path:
    spec = find_spec("cyclonedds")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'cyclonedds'", name="cyclonedds")
    return Path(spec.origin).parent


def _library_path() -> Path:
    folder = _package_folder().with_name("cyclonedds.libs")
    found = next(folder.glob("libddsc-*.so*"), None)
    if found is None:
        raise DependencyError(f"{folder}: holds no libddsc", mend=MEND)
    return found
