"""Addresses: what leads to another machine needs TLS; what is no address is named."""

from __future__ import annotations

import pytest

from fastvla_core.errors import RemoteError
from fastvla_core.remote.address import is_remote, parse_listen, parse_url


@pytest.mark.parametrize(
    ("url", "target", "secure", "loopback"),
    [
        ("grpc://127.0.0.1:5005", "127.0.0.1:5005", False, True),
        ("grpc://localhost", "localhost:50051", False, True),
        ("grpc://[::1]:7", "[::1]:7", False, True),
        ("grpcs://gpu-box:5005", "gpu-box:5005", True, False),
        ("grpcs://10.0.0.3:5005", "10.0.0.3:5005", True, False),
    ],
)
def test_an_address_is_read_and_shown(url, target, secure, loopback):
    address = parse_url(url)
    assert (address.target, address.secure, address.is_loopback) == (target, secure, loopback)
    assert str(address) == (url if ":50051" not in target else f"{url}:50051")


@pytest.mark.parametrize("host", ["10.0.0.3", "gpu-box", "0.0.0.0", "localhost.example.org"])
def test_another_machine_is_not_reached_without_tls(host):
    with pytest.raises(RemoteError, match="without TLS") as raised:
        parse_url(f"grpc://{host}:5005")
    assert "ssh -N -L 5005:127.0.0.1:5005" in raised.value.mend
    assert f"grpcs://{host}:5005" in raised.value.mend


@pytest.mark.parametrize(
    "text", ["", ":5005", "host:port", "host:99999", "host:1/path", "user@host:1", "[::1", "a?b"]
)
def test_what_is_no_address_is_named(text):
    for read in (lambda: parse_listen(text, secure=False), lambda: parse_url(f"grpcs://{text}")):
        with pytest.raises(RemoteError, match="is no address"):
            read()


def test_a_checkpoint_is_remote_when_it_is_an_address():
    assert is_remote("grpc://x")
    assert is_remote("grpcs://x:1")
    for name in ("nano", "/a/b", "owner/repo", "grpc", "http://x", ""):
        assert not is_remote(name)
