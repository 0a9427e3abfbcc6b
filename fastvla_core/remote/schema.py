"""The messages and methods of the .proto files in this folder, from their compiled descriptors.

Code that protoc generates for Python refuses to run with another major version of protobuf than
its own; descriptors have one format for all versions. After a change of a .proto file:

    cd fastvla_core/remote
    python -m grpc_tools.protoc -I . --descriptor_set_out=schema.binpb policy.proto health.proto
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "fastvla.remote.v1"
POLICY = f"{PACKAGE}.Policy"
HEALTH = "grpc.health.v1.Health"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of a service: its path on the wire and the classes of its messages."""

    path: str
    request: Any
    reply: Any


def message(name: str) -> Any:
    """The class of a message of `policy.proto`, by its bare name."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


def methods(service: str) -> dict[str, Method]:
    """The methods of a service, by their names."""
    return {
        method.name: Method(
            path=f"/{service}/{method.name}",
            request=message_factory.GetMessageClass(method.input_type),
            reply=message_factory.GetMessageClass(method.output_type),
        )
        for method in _pool().FindServiceByName(service).methods
    }


@cache
def _pool() -> Any:
    # A pool of its own: the process may hold gRPC's own health check as well.
    pool = descriptor_pool.DescriptorPool()
    compiled = Path(__file__).with_name("schema.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        pool.Add(file)
    return pool
