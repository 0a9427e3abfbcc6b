"""A policy on another machine that infers like a local one."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import grpc

from fastvla_core.errors import (
    FastVLAError,
    RemoteError,
    RemoteTimeoutError,
    RemoteUnavailableError,
)
from fastvla_core.remote import messages, schema
from fastvla_core.remote.address import Address, parse_url
from fastvla_core.remote.credentials import load_credentials, to_channel
from fastvla_core.remote.limits import CHANNEL_OPTIONS
from fastvla_core.robot.agreement import check_trained_for
from fastvla_core.robot.contract import RobotContract
from fastvla_core.types import ActionChunk, ChunkPrefix, Conditioning, Observation

_RETRY_S = 0.2
# How long a failed inference waits for the server to come back, before it is reported.
_COMEBACK_S = 0.25
_COME_AND_GO = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
)


class RemotePolicy:
    """An `InferencePolicy` whose network is elsewhere; made by `connect`.

    It dials again by itself. An inference that fails because the server is not there raises
    `RemoteUnavailableError` as soon as it is there again, or after a moment: the caller then asks
    with a newer observation, never with the one that waited.

    Attributes:
        description: What the server serves.
    """

    def __init__(
        self,
        address: Address,
        *,
        channel: grpc.Channel,
        description: messages.Description,
        timeout_s: float,
        jpeg_quality: int,
    ) -> None:
        self.description = description
        self._address = address
        self._channel = channel
        self._timeout_s, self._jpeg_quality = timeout_s, jpeg_quality
        self._describe = _call(channel, "Describe")
        self._ask = _call(channel, "Infer")
        self._request = schema.message("InferRequest")
        self.reset()

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        credentials: str | Path | None = None,
        contract: RobotContract | None = None,
        timeout_s: float = 10.0,
        connect_timeout_s: float = 10.0,
        jpeg_quality: int = 0,
    ) -> RemotePolicy:
        """Reach a server, and see that its policy is for this robot.

        Args:
            url: `grpc://127.0.0.1:50051`, or `grpcs://host:port` with TLS.
            credentials: A folder, see `credentials`.
            contract: The robot that is served.
            timeout_s: How long one inference may take, the way there and back included.
            connect_timeout_s: How long to try.
            jpeg_quality: 1 to 100 sends the images compressed; 0 their very bytes.

        Raises:
            RemoteError: it cannot be reached, refuses us, or is no policy server.
            ContractError: the policy was trained for another robot; lists the differences.
        """
        address = parse_url(url)
        channel = _open(address, credentials)
        try:
            description = _first_description(channel, address, timeout_s=connect_timeout_s)
            if contract is not None:
                check_trained_for(contract, description.contract, source=str(address))
        except FastVLAError:
            channel.close()
            raise
        return cls(
            address,
            channel=channel,
            description=description,
            timeout_s=timeout_s,
            jpeg_quality=jpeg_quality,
        )

    @property
    def device(self) -> str:
        """Where the network runs, and with what weights."""
        weights = self.description.quantization or "full precision"
        return f"{weights}, {self.description.device} of '{self.description.checkpoint}'"

    def reset(self, seed: int = 0) -> None:
        """Start over: chunks count from 0, and the noise comes from `seed`."""
        self._episode, self._seed, self._chunks = uuid.uuid4().hex, seed, 0

    @property
    def conditionings(self) -> tuple[Conditioning, ...]:
        """The ways in which a chunk can be made to agree with a prefix; empty when in none."""
        return self.description.conditionings

    @property
    def history_s(self) -> tuple[float, ...]:
        """How long before an observation the earlier ones are that the policy reads with it [s]."""
        return self.description.history_s

    def infer(
        self, observation: Observation, /, *, prefix: ChunkPrefix | None = None
    ) -> ActionChunk:
        """One chunk for one observation, the same as a local policy would give.

        Raises:
            RemoteUnavailableError: the server is not there; a newer observation may get through.
            RemoteTimeoutError: no answer came in time.
            RemoteError: it serves another policy now, refuses us, or the message is too large.
            FastVLAError: what the policy itself raised.
        """
        request = self._request(
            policy_id=self.description.policy_id,
            episode=self._episode,
            seed=self._seed,
            observation=messages.from_observation(observation, jpeg_quality=self._jpeg_quality),
            prefix=messages.from_prefix(prefix),
        )
        try:
            reply = self._ask(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._explained(error) from error
        if reply.WhichOneof("answer") != "chunk":
            raise messages.to_error(reply.problem, where=str(self._address))
        chunk = messages.to_chunk(reply.chunk, chunk_id=self._chunks)
        self._chunks += 1
        return chunk

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def _explained(self, error: grpc.RpcError) -> RemoteError:
        code = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return RemoteTimeoutError(
                f"{self._address}: no answer within {self._timeout_s:g} s",
                mend="look at the load of that machine and at the network, or raise "
                "inference_timeout_s",
            )
        if code is grpc.StatusCode.FAILED_PRECONDITION:
            return RemoteError(
                f"{self._address}: the policy was changed, {error.details()}; it was "
                f"'{self.description.checkpoint}'",
                mend="configure the policy server again to use the new one",
            )
        explained = _explained(error, self._address)
        if isinstance(explained, RemoteUnavailableError):
            self._wait_for_comeback()
        return explained

    def _wait_for_comeback(self) -> None:
        request = schema.message("DescribeRequest")()
        try:
            self._describe(request, timeout=_COMEBACK_S, wait_for_ready=True)
        except grpc.RpcError:
            return  # the failed inference is reported anyway


def _first_description(
    channel: grpc.Channel, address: Address, *, timeout_s: float
) -> messages.Description:
    describe, request = _call(channel, "Describe"), schema.message("DescribeRequest")()
    deadline_s = time.monotonic() + timeout_s
    while True:
        left_s = max(_RETRY_S, deadline_s - time.monotonic())
        try:
            return messages.to_description(describe(request, timeout=left_s))
        except grpc.RpcError as error:
            explained = _explained(error, address)
            passing = isinstance(explained, RemoteUnavailableError)
            if not passing or time.monotonic() + _RETRY_S > deadline_s:
                raise explained from error
        time.sleep(_RETRY_S)


def _explained(error: Any, address: Address) -> RemoteError:
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return RemoteError(
            f"{address} refuses us: {details}", mend="both machines need the same token file"
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return RemoteError(
            f"{address} speaks gRPC, but serves no policy for this version of FastVLA",
            mend="start `fastvla serve` there, of the same version",
        )
    if "larger than max" in str(details):
        return RemoteError(
            f"{address}: an observation is too large to send: {details}",
            mend="set remote_jpeg_quality, for example to 90, or smaller images in the contract",
        )
    if code in _COME_AND_GO or code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RemoteUnavailableError(
            f"the policy at {address} cannot be reached: {details}",
            mend="is `fastvla serve` running there? Are address, port and credentials right?",
        )
    return RemoteError(f"{address}: {code.name}: {details}", mend="look at the log of that machine")


def _open(address: Address, credentials: str | Path | None) -> grpc.Channel:
    given = load_credentials(credentials) if credentials else None
    if address.secure:
        return grpc.secure_channel(address.target, to_channel(given), options=CHANNEL_OPTIONS)
    if given is not None:
        raise RemoteError(
            f"{given.folder}: credentials are of no use for '{address}', which is without TLS",
            mend=f"write grpcs://{address.target}, or give no credentials",
        )
    return grpc.insecure_channel(address.target, options=CHANNEL_OPTIONS)


def _call(channel: grpc.Channel, name: str) -> Any:
    method = schema.methods(schema.POLICY)[name]
    return channel.unary_unary(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.reply.FromString,
    )
