"""Nobody without credentials gets in from another machine, and the refusals say what to do."""

from __future__ import annotations

import grpc
import pytest

from fastvla_core.errors import RemoteError
from fastvla_core.remote import schema
from fastvla_core.remote.address import Address, parse_listen
from fastvla_core.remote.client import RemotePolicy
from fastvla_core.remote.credentials import load_credentials
from tests.core.remote.certificates import TOKEN, Authority, folder, make_authority
from tests.core.remote.toys import Toy, observation, serve

SECURE = Address(host="127.0.0.1", port=0, secure=True)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def identity(authority: Authority) -> tuple[bytes, bytes]:
    return authority.issue("somebody")


def connect(server, credentials=None, **options):
    options = {"connect_timeout_s": 2.0, "timeout_s": 10.0, **options}
    return RemotePolicy.connect(str(server.address), credentials=credentials, **options)


def secured(path):
    return serve(Toy(), listen=SECURE, credentials=load_credentials(path))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.3", "some-name"])
def test_no_server_listens_to_other_machines_without_credentials(host):
    with pytest.raises(RemoteError, match="without credentials") as raised:
        serve(Toy(), listen=Address(host=host, port=0, secure=False))
    assert "ssh tunnel" in raised.value.mend


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "127.0.0.1:0"])
def test_tls_alone_is_not_enough_because_it_does_not_tell_who_the_clients_are(
    tmp_path, identity, listen
):
    credentials = load_credentials(folder(tmp_path / "s", identity=identity))
    with pytest.raises(RemoteError, match=r"neither ca.pem nor token"):
        serve(Toy(), listen=parse_listen(listen, secure=True), credentials=credentials)


def test_a_token_alone_is_not_enough_because_it_would_go_in_the_clear(tmp_path):
    credentials = load_credentials(folder(tmp_path / "s", token=TOKEN))
    with pytest.raises(RemoteError, match=r"no cert.pem and key.pem"):
        serve(Toy(), listen=SECURE, credentials=credentials)


def test_with_tls_and_a_token_it_listens_anywhere(tmp_path, authority, identity):
    path = folder(tmp_path / "s", identity=identity, token=TOKEN)
    client = folder(tmp_path / "c", trusts=authority, token=TOKEN)
    anywhere = parse_listen("0.0.0.0:0", secure=True)
    with serve(Toy(), listen=anywhere, credentials=load_credentials(path)) as server:
        url = f"grpcs://127.0.0.1:{server.address.port}"
        policy = RemotePolicy.connect(url, credentials=client, connect_timeout_s=5)
        assert policy.infer(observation(3)).stamp_ns == 3
        policy.close()


@pytest.mark.parametrize("token", ["", TOKEN + "x"])
def test_another_token_is_refused_for_every_method(tmp_path, authority, identity, token):
    server_path = folder(tmp_path / "s", identity=identity, token=TOKEN)
    client = folder(tmp_path / "c", trusts=authority, token=token)
    with secured(server_path) as server:
        with pytest.raises(RemoteError, match="refuses us") as raised:
            connect(server, client)
        assert "token" in raised.value.mend
        trust = grpc.ssl_channel_credentials(authority.pem)
        with grpc.secure_channel(server.address.target, trust) as channel:
            for service in (schema.POLICY, schema.HEALTH):
                for method in schema.methods(service).values():
                    call = channel.unary_unary(method.path)
                    with pytest.raises(grpc.RpcError) as refused:
                        call(b"", timeout=5)
                    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_certificates_of_the_authority_get_in_and_others_do_not(tmp_path, authority, identity):
    stranger = make_authority("stranger")
    server_path = folder(tmp_path / "s", identity=identity, trusts=authority)
    known = folder(tmp_path / "k", identity=authority.issue("robot"), trusts=authority)
    unknown = folder(tmp_path / "u", identity=stranger.issue("robot"), trusts=authority)
    nameless = folder(tmp_path / "n", trusts=authority)
    with secured(server_path) as server:
        policy = connect(server, known)
        assert policy.infer(observation(3)).stamp_ns == 3
        policy.close()
        for path in (unknown, nameless):
            with pytest.raises(RemoteError, match="cannot be reached"):
                connect(server, path, connect_timeout_s=0.5)


def test_a_server_that_the_client_does_not_know_gets_no_observation(tmp_path, identity):
    server_path = folder(tmp_path / "s", identity=identity, token=TOKEN)
    other = folder(tmp_path / "c", trusts=make_authority("stranger"), token=TOKEN)
    with (
        secured(server_path) as server,
        pytest.raises(RemoteError, match="cannot be reached"),
    ):
        connect(server, other, connect_timeout_s=0.5)


def test_a_client_without_tls_gets_nothing_from_a_server_with_it(tmp_path, identity):
    path = folder(tmp_path / "s", identity=identity, token=TOKEN)
    with (
        secured(path) as server,
        pytest.raises(RemoteError, match="cannot be reached"),
    ):
        RemotePolicy.connect(f"grpc://{server.address.target}", connect_timeout_s=0.5)


def test_credentials_are_not_given_to_an_address_without_tls(tmp_path, authority):
    client = folder(tmp_path / "c", trusts=authority, token=TOKEN)
    with pytest.raises(RemoteError, match="without TLS"):
        RemotePolicy.connect("grpc://127.0.0.1:1", credentials=client, connect_timeout_s=0.1)


def test_a_folder_that_cannot_be_is_named(tmp_path, identity):
    with pytest.raises(RemoteError, match="no folder"):
        load_credentials(tmp_path / "none")
    with pytest.raises(RemoteError, match="holds none of"):
        load_credentials(folder(tmp_path / "empty"))
    half = folder(tmp_path / "half", identity=identity)
    (half / "key.pem").unlink()
    with pytest.raises(RemoteError, match="belong together"):
        load_credentials(half)
    (half / "key.pem").write_text("no key")
    with pytest.raises(RemoteError, match="no PEM"):
        load_credentials(half)
    with pytest.raises(RemoteError, match="at least 16"):
        load_credentials(folder(tmp_path / "short", token="short"))


def test_a_key_of_another_certificate_is_refused_when_it_starts(tmp_path, authority, identity):
    path = folder(tmp_path / "s", identity=(identity[0], authority.issue("x")[1]), token=TOKEN)
    with pytest.raises(RemoteError, match="cannot listen"):
        secured(path)
