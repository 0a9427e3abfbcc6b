"""Who may talk to whom: a folder of PEM files and a token, the same kind on both machines.

cert.pem, key.pem   who this side is; a server always needs them
ca.pem              whom this side believes; with it a server demands certificates of clients
token               a secret that both sides know, sent only through TLS
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from fastvla_core.errors import RemoteError
from fastvla_core.remote.address import Address

_DOCS = "docs/remote.md shows how to make them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a folder holds; None where a file is not there."""

    folder: Path
    certificate: bytes | None
    key: bytes | None
    authority: bytes | None
    token: str | None


def load_credentials(folder: str | Path) -> Credentials:
    """Read a folder of credentials.

    Raises:
        RemoteError: it is missing, empty, or a file in it cannot be what it should be.
    """
    path = Path(folder)
    if not path.is_dir():
        raise RemoteError(f"{path} is no folder of credentials", mend=_DOCS)
    found = Credentials(
        folder=path,
        certificate=_pem(path / "cert.pem"),
        key=_pem(path / "key.pem"),
        authority=_pem(path / "ca.pem"),
        token=_token(path / "token"),
    )
    if not (found.certificate or found.key or found.authority or found.token):
        raise RemoteError(f"{path} holds none of cert.pem, key.pem, ca.pem and token", mend=_DOCS)
    if (found.certificate is None) != (found.key is None):
        raise RemoteError(f"{path}: cert.pem and key.pem belong together", mend=_DOCS)
    return found


def server_credentials(credentials: Credentials | None, *, listen: Address) -> Credentials | None:
    """See that a server may listen there; gives back what it listens with.

    Raises:
        RemoteError: other machines could reach it and it could not tell who they are.
    """
    if credentials is None:
        if listen.is_loopback:
            return None
        raise RemoteError(
            f"listening on {listen.target} without credentials would let every machine that "
            "reaches it use the policy",
            mend="listen on 127.0.0.1 (and reach it through an ssh tunnel), or give --credentials "
            f"FOLDER with cert.pem, key.pem and a ca.pem or a token; {_DOCS}",
        )
    if credentials.certificate is None:
        raise RemoteError(
            f"{credentials.folder} holds no cert.pem and key.pem: a server needs them", mend=_DOCS
        )
    if credentials.authority is None and credentials.token is None:
        raise RemoteError(
            f"{credentials.folder} holds neither ca.pem nor token: the server could not tell who "
            "its clients are",
            mend="add a ca.pem (clients then need a certificate of it) or a token",
        )
    return credentials


def to_server(credentials: Credentials) -> grpc.ServerCredentials:
    """TLS for a server; with an authority, for clients with a certificate of it only."""
    return grpc.ssl_server_credentials(
        [(credentials.key or b"", credentials.certificate or b"")],
        root_certificates=credentials.authority,
        require_client_auth=credentials.authority is not None,
    )


def to_channel(credentials: Credentials | None) -> grpc.ChannelCredentials:
    """TLS for a client; without an authority of its own it believes gRPC's usual ones."""
    if credentials is None:
        return grpc.ssl_channel_credentials()
    tls = grpc.ssl_channel_credentials(
        root_certificates=credentials.authority,
        private_key=credentials.key,
        certificate_chain=credentials.certificate,
    )
    if credentials.token is None:
        return tls
    return grpc.composite_channel_credentials(
        tls, grpc.access_token_call_credentials(credentials.token)
    )


def _pem(path: Path) -> bytes | None:
    if not path.exists():
        return None
    data = path.read_bytes()
    if b"-----BEGIN " not in data:
        raise RemoteError(f"{path} is no PEM file", mend=_DOCS)
    return data


def _token(path: Path) -> str | None:
    if not path.exists():
        return None
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise RemoteError(
            f"{path} holds no token of at least 16 letters and digits",
            mend=f"python3 -c 'import secrets; print(secrets.token_urlsafe())' > {path}",
        )
    return token
