"""Serves a policy through gRPC: one inference at a time, in the order of the requests."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any

import grpc

from fastvla_core.errors import FastVLAError, RemoteError
from fastvla_core.remote import messages, schema
from fastvla_core.remote.address import Address
from fastvla_core.remote.credentials import Credentials, server_credentials, to_server
from fastvla_core.remote.limits import MESSAGE_OPTIONS
from fastvla_core.runtime.engine import ContinuingPolicy
from fastvla_core.types import ActionChunk, Observation

_LOG = logging.getLogger(__name__)
# Enough that health and descriptions are answered while inferences wait for their turn.
_THREADS = 8
_MAX_CALLS = 32
_STOP_GRACE_S = 2.0


class PolicyServer:
    """A listening server; a context manager that stops it.

    Args:
        policy: Its methods are called from one thread only, which is not the caller's.
        listen: Where; port 0 takes a free one.
        credentials: Needed where other machines reach the address.
        warm_up: What to infer from before anybody is served.

    Raises:
        RemoteError: the address is taken or not of this machine, or other machines could reach it
            and the server could not tell who they are.
        FastVLAError: what the policy raises while it warms up.
    """

    def __init__(
        self,
        policy: ContinuingPolicy,
        *,
        description: messages.Description,
        listen: Address,
        credentials: Credentials | None = None,
        warm_up: Iterable[Observation] = (),
    ) -> None:
        credentials = server_credentials(credentials, listen=listen)
        self._inference = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        for observation in warm_up:
            # In the thread that infers later: libraries keep what they prepare per thread.
            self._inference.submit(policy.infer, observation).result()
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="grpc"),
            handlers=_handlers(_PolicyService(policy, description, self._inference)),
            interceptors=_gates(credentials),
            maximum_concurrent_rpcs=_MAX_CALLS,
            # Two servers on one port would share its calls between them.
            options=(("grpc.so_reuseport", 0), *MESSAGE_OPTIONS),
        )
        self.address = self._bind(listen, credentials)
        self._server.start()

    def __enter__(self) -> PolicyServer:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take no more calls, let those under way end for a moment, and leave the port."""
        self._server.stop(_STOP_GRACE_S).wait()
        self._inference.shutdown(cancel_futures=True)

    def _bind(self, listen: Address, credentials: Credentials | None) -> Address:
        try:
            if credentials is None:
                port = self._server.add_insecure_port(listen.target)
            else:
                port = self._server.add_secure_port(listen.target, to_server(credentials))
        except RuntimeError as error:
            raise RemoteError(
                f"cannot listen on {listen.target}: {error}",
                mend="the port may be taken, the address not of this machine, or cert.pem and "
                "key.pem not belong together",
            ) from error
        return Address(host=listen.host, port=port, secure=credentials is not None)


class _PolicyService:
    """The methods of `policy.proto`."""

    def __init__(
        self,
        policy: ContinuingPolicy,
        description: messages.Description,
        inference: ThreadPoolExecutor,
    ) -> None:
        self._policy = policy
        self._description = description
        self._inference = inference
        self._episode = ""

    def describe(self, _request: Any, _context: Any) -> Any:
        return messages.from_description(self._description)

    def infer(self, request: Any, context: Any) -> Any:
        reply = schema.message("InferReply")
        if request.policy_id != self._description.policy_id:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"'{self._description.checkpoint}' is served here now",
            )
        turn = self._inference.submit(self._infer, request)
        # Nobody waits for a chunk whose goal has ended: where it has not begun, it never will.
        context.add_callback(turn.cancel)
        wait([turn], timeout=context.time_remaining())
        if turn.cancelled() or not turn.done():
            left_s = context.time_remaining()
            late = left_s is not None and left_s <= 0
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            context.abort(code, "nobody waits for it any more")
        error = turn.exception()
        if error is None:
            return reply(chunk=messages.from_chunk(turn.result()))
        # Whatever a policy raises is told: at the robot it ends the goal in words.
        if not isinstance(error, FastVLAError):
            _LOG.error("the policy failed", exc_info=error)
        return reply(problem=messages.from_error(error))

    def _infer(self, request: Any) -> ActionChunk:
        if request.episode != self._episode:
            self._policy.reset(request.seed)
            self._episode = request.episode
        observation = messages.to_observation(request.observation)
        if request.HasField("prefix"):
            return self._policy.infer(observation, prefix=messages.to_prefix(request.prefix))
        return self._policy.infer(observation)


def _handlers(service: _PolicyService) -> list[grpc.GenericRpcHandler]:
    def check(_request: Any, _context: Any) -> Any:
        reply = schema.methods(schema.HEALTH)["Check"].reply
        return reply(status=reply.SERVING)

    return [
        _handler(schema.POLICY, {"Describe": service.describe, "Infer": service.infer}),
        _handler(schema.HEALTH, {"Check": check}),
    ]


def _handler(
    service: str, functions: dict[str, Callable[[Any, Any], Any]]
) -> grpc.GenericRpcHandler:
    methods = schema.methods(service)
    return grpc.method_handlers_generic_handler(
        service,
        {
            name: grpc.unary_unary_rpc_method_handler(
                function,
                request_deserializer=methods[name].request.FromString,
                response_serializer=methods[name].reply.SerializeToString,
            )
            for name, function in functions.items()
        },
    )


def _gates(credentials: Credentials | None) -> list[grpc.ServerInterceptor]:
    return [_TokenGate(credentials.token)] if credentials and credentials.token else []


class _TokenGate(grpc.ServerInterceptor):
    """Lets calls through that carry the token."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()
        self._refusal = grpc.unary_unary_rpc_method_handler(
            lambda _request, context: context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "the token is missing or another one"
            )
        )

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        given = dict(details.invocation_metadata).get("authorization", "")
        if hmac.compare_digest(str(given).encode(), self._expected):
            return continuation(details)
        return self._refusal
