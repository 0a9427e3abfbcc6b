"""Says what is missing where gRPC is not installed."""

from __future__ import annotations

import importlib

from fastvla_core.errors import DependencyError


def require_grpc() -> None:
    """See that gRPC and protobuf can be imported; call it before `client` or `service` are.

    Raises:
        DependencyError: one of them is missing.
    """
    for module, package in (("grpc", "grpcio"), ("google.protobuf", "protobuf")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise DependencyError(
                f"a policy on another machine needs the package {package}: {error}",
                mend="pip install 'fastvla[remote]', on both machines",
            ) from error
