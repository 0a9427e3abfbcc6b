"""Where a remote policy is: `grpc://host:port` on this machine, `grpcs://host:port` anywhere."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastvla_core.errors import RemoteError

DEFAULT_PORT = 50051
_SCHEMES = {"grpc": False, "grpcs": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host and a port; `secure` is with TLS."""

    host: str
    port: int
    secure: bool

    @property
    def target(self) -> str:
        """As gRPC takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it cannot be reached from another machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name, whatever it may mean today

    def __str__(self) -> str:
        return f"{'grpcs' if self.secure else 'grpc'}://{self.target}"


def is_remote(checkpoint: str) -> bool:
    """Whether a checkpoint is the address of a policy on another machine."""
    return checkpoint.partition("://")[0] in _SCHEMES and "://" in checkpoint


def parse_url(url: str) -> Address:
    """The address in `grpc://host:port` or `grpcs://host:port`.

    Raises:
        RemoteError: it is none, or `grpc://` leads to another machine.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        raise RemoteError(f"'{url}' is no address of a policy", mend="write grpcs://HOST:PORT")
    address = _parse(rest, secure=_SCHEMES[scheme], shown=url)
    if not address.secure and not address.is_loopback:
        raise RemoteError(
            f"'{url}' leads to another machine without TLS: anybody on the way could command the "
            "robot and watch its cameras",
            mend=f"write grpcs://{address.target} and give credentials, or make a tunnel: "
            f"ssh -N -L {address.port}:127.0.0.1:{address.port} {address.host}, and write "
            f"grpc://127.0.0.1:{address.port}",
        )
    return address


def parse_listen(text: str, *, secure: bool) -> Address:
    """The address in `HOST:PORT` or `HOST`; port 0 takes a free one.

    Raises:
        RemoteError: it is none.
    """
    return _parse(text, secure=secure, shown=text)


def _parse(text: str, *, secure: bool, shown: str) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _no_address(shown, str(error)) from error
    if not host or parts.path or parts.query or parts.fragment or parts.username is not None:
        raise _no_address(shown, "expected a host and a port")
    return Address(host=host, port=DEFAULT_PORT if port is None else port, secure=secure)


def _no_address(shown: str, why: str) -> RemoteError:
    return RemoteError(
        f"'{shown}' is no address: {why}",
        mend=f"write for example 127.0.0.1:{DEFAULT_PORT}, [::1]:{DEFAULT_PORT} or "
        f"gpu-box:{DEFAULT_PORT}",
    )
