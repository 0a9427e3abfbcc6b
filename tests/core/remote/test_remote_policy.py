"""A remote policy gives what a local one would, or says why it cannot; it dials again by itself."""

from __future__ import annotations

import dataclasses
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

from fastvla_core.errors import (
    ContractError,
    ObservationError,
    PolicyError,
    RemoteError,
    RemoteTimeoutError,
    RemoteUnavailableError,
)
from fastvla_core.policy import FastVLA
from fastvla_core.remote import schema
from fastvla_core.remote.address import Address
from fastvla_core.remote.client import RemotePolicy
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.types import ChunkPrefix, Observation
from tests.core.remote.toys import Toy, description, in_background, observation, serve


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def server(toy):
    with serve(toy) as server:
        yield server
        toy.leave.set()


def connect(server, **options) -> RemotePolicy:
    return RemotePolicy.connect(str(server.address), **{"connect_timeout_s": 5.0, **options})


@pytest.fixture
def remote(server):
    policy = connect(server)
    yield policy
    policy.close()


def again(server, toy, **options):
    """Another server at the address of one that has stopped."""
    return serve(toy, listen=server.address, **options)


def scenes(contract, count: int) -> list[Observation]:
    random = np.random.default_rng(1)
    return [
        Observation(
            stamp_ns=1_700_000_000_000_000_000 + number,
            task="pick up the red cube",
            images={
                c.name: random.integers(0, 256, (c.height, c.width, 3), np.uint8)
                for c in contract.policy_cameras
            },
            state=random.uniform(-0.5, 0.5, len(contract.state_names)).astype(np.float32),
        )
        for number in range(count)
    ]


def test_chunks_are_byte_equal_to_those_of_the_same_policy_here():
    contract = load_contract("tabletop")
    local = FastVLA.from_pretrained("nano", contract=contract)
    served = FastVLA.from_pretrained("nano")
    with serve(served, description=description(contract=served.config.robot_contract)) as server:
        remote = connect(server, contract=contract)
        for seed in (0, 5):
            local.reset(seed)
            remote.reset(seed)
            for scene in scenes(contract, 3):
                here, there = local.infer(scene), remote.infer(scene)
                assert there.positions.tobytes() == here.positions.tobytes()
                assert dataclasses.replace(there, positions=here.positions) == here
        remote.close()


def test_two_clients_of_one_server_do_not_disturb_each_other(server, toy, remote):
    other = connect(server)
    other.reset(9)
    for _ in range(2):
        assert remote.infer(observation(1)).stamp_ns == 1
        assert other.infer(observation(2)).stamp_ns == 2
    assert toy.seeds == [0, 9, 0, 9]
    other.close()


def test_the_policy_is_reset_once_per_run_of_a_task(toy, remote):
    remote.reset(3)
    chunks = [remote.infer(observation(n)).chunk_id for n in range(3)]
    assert chunks == [0, 1, 2]
    remote.reset(3)
    assert remote.infer(observation(9)).chunk_id == 0
    assert toy.seeds == [3, 3]


def test_a_prefix_gets_there(server, toy):
    remote = connect(server)
    prefix = ChunkPrefix(
        names=("a", "b"), positions=np.ones((2, 2)), frozen=1, conditioning="inpaint"
    )
    remote.infer(observation(), prefix=prefix)
    remote.infer(observation())
    assert toy.prefixes[0] is not None
    assert toy.prefixes[0].frozen == 1
    assert toy.prefixes[1] is None
    remote.close()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (PolicyError("NaN", mend="retrain"), PolicyError),
        (ObservationError("camera 'front' is missing", mend="plug it in"), ObservationError),
        (RuntimeError("CUDA out of memory"), RemoteError),
    ],
)
def test_errors_of_the_policy_come_back_with_their_words(server, toy, remote, raised, expected):
    toy.error = raised
    with pytest.raises(expected) as told:
        remote.infer(observation())
    assert type(told.value) is expected
    assert str(server.address) in told.value.message
    assert str(getattr(raised, "message", raised)) in told.value.message
    assert told.value.mend == getattr(raised, "mend", "the server's log says where")
    toy.error = None
    assert remote.infer(observation(4)).stamp_ns == 4


def test_an_inference_has_a_deadline(server, toy):
    remote = connect(server, timeout_s=0.2)
    toy.leave.clear()
    begin = time.monotonic()
    with pytest.raises(RemoteTimeoutError, match=r"no answer within 0.2 s"):
        remote.infer(observation())
    assert time.monotonic() - begin < 5
    toy.leave.set()
    remote.close()


def test_what_waits_for_its_turn_is_dropped_when_its_caller_has_left(server, toy):
    toy.leave.clear()
    patient, hasty = connect(server), connect(server, timeout_s=0.3)
    thread, results = in_background(lambda: patient.infer(observation(1)))
    assert toy.entered.acquire(timeout=5)
    with pytest.raises(RemoteTimeoutError):
        hasty.infer(observation(2))
    # On the same connection, so that the server knows of the departure when it answers.
    connect(server).close()
    toy.leave.set()
    thread.join(10)
    assert results[0].stamp_ns == 1
    assert patient.infer(observation(3)).stamp_ns == 3
    assert [seen.stamp_ns for seen in toy.seen] == [1, 3]
    patient.close()
    hasty.close()


def test_descriptions_are_answered_while_the_policy_works(server, toy, remote):
    toy.leave.clear()
    thread, _ = in_background(lambda: remote.infer(observation()))
    assert toy.entered.acquire(timeout=5)
    connect(server, connect_timeout_s=5).close()
    toy.leave.set()
    thread.join(10)


def test_a_server_that_is_gone_is_told_within_a_moment_and_found_again(toy):
    with serve(toy) as server:
        remote = connect(server)
        remote.infer(observation(1))
    begin = time.monotonic()
    with pytest.raises(RemoteUnavailableError, match="cannot be reached"):
        remote.infer(observation(2))
    # It is told neither before another try makes sense, nor much later.
    assert 0.2 < time.monotonic() - begin < 5
    with again(server, toy):
        deadline = time.monotonic() + 10
        for stamp in range(3, 1000):
            try:
                assert remote.infer(observation(stamp)).stamp_ns == stamp
                break
            except RemoteUnavailableError:
                assert time.monotonic() < deadline
    assert 2 not in [seen.stamp_ns for seen in toy.seen]
    remote.close()


def test_a_server_that_dies_in_the_middle_of_an_inference_is_told(toy):
    toy.leave.clear()
    server = serve(toy)
    remote = connect(server)
    thread, results = in_background(lambda: remote.infer(observation()))
    assert toy.entered.acquire(timeout=5)
    stopper, _ = in_background(server.stop)
    thread.join(10)
    assert isinstance(results[0], RemoteUnavailableError)
    toy.leave.set()
    stopper.join(10)
    remote.close()


def test_another_policy_at_the_same_address_is_refused(toy):
    with serve(toy) as server:
        remote = connect(server)
        remote.infer(observation())
    with again(server, toy, description=description("two")):
        deadline = time.monotonic() + 10
        while True:
            with pytest.raises(RemoteError) as told:
                remote.infer(observation())
            if not isinstance(told.value, RemoteUnavailableError):
                break
            assert time.monotonic() < deadline
        assert "'toy two' is served here now; it was 'toy one'" in told.value.message
        fresh = connect(server)
        fresh.infer(observation())
        fresh.close()
    remote.close()


def test_nobody_there_is_one_clear_message():
    with pytest.raises(RemoteUnavailableError, match=r"127.0.0.1:1 cannot be reached") as told:
        RemotePolicy.connect("grpc://127.0.0.1:1", connect_timeout_s=0.3)
    assert "fastvla serve" in told.value.mend


def test_another_grpc_server_is_told_apart():
    strange = grpc.server(futures.ThreadPoolExecutor(1))
    port = strange.add_insecure_port("127.0.0.1:0")
    strange.start()
    with pytest.raises(RemoteError, match="serves no policy"):
        RemotePolicy.connect(f"grpc://127.0.0.1:{port}", connect_timeout_s=5)
    strange.stop(None).wait()


def test_a_policy_for_another_robot_is_refused_with_the_differences():
    contract = load_contract("tabletop")
    theirs = contract.to_dict()
    theirs["joints"] = {
        ("elbow" if name == "joint3" else name): joint for name, joint in theirs["joints"].items()
    }
    with serve(Toy(), description=description(contract=theirs)) as server:
        with pytest.raises(ContractError, match=r"joints: .*joint3.*here, .*elbow.*there"):
            connect(server, contract=contract)
        connect(server).close()
    with (
        serve(Toy()) as server,
        pytest.raises(ContractError, match="names no robot contract"),
    ):
        connect(server, contract=contract)


def test_an_observation_that_is_too_large_says_what_to_do(remote):
    large = Observation(
        stamp_ns=1,
        task="",
        images={"c": np.zeros((5000, 5000, 3), np.uint8)},
        state=np.zeros(1, np.float32),
    )
    with pytest.raises(RemoteError, match="too large") as told:
        remote.infer(large)
    assert "remote_jpeg_quality" in told.value.mend


def test_two_servers_do_not_share_a_port(server):
    with pytest.raises(RemoteError, match="cannot listen"):
        serve(Toy(), listen=server.address)


def test_an_address_of_no_machine_of_ours_is_named():
    with pytest.raises(RemoteError):
        serve(Toy(), listen=Address(host="203.0.113.7", port=0, secure=False))


def test_the_standard_health_check_is_answered(server):
    method = schema.methods(schema.HEALTH)["Check"]
    with grpc.insecure_channel(server.address.target) as channel:
        call = channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.reply.FromString,
        )
        assert call(method.request(), timeout=5).status == method.reply.SERVING


def test_the_proxy_of_the_environment_is_not_asked(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    connect(server).close()
