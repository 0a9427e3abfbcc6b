"""The life between `init` and `shutdown`, and the one participant that its nodes share."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from fastvla_ros.embedded.rcl.arguments import RosArguments, parse_arguments
from fastvla_ros.embedded.rcl.exceptions import NotInitializedException
from fastvla_ros.embedded.wire.config import domain_id as environment_domain_id
from fastvla_ros.embedded.wire.graph import Graph
from fastvla_ros.embedded.wire.messages import MessageFactory
from fastvla_ros.embedded.wire.participant import Participant
from fastvla_ros.embedded.wire.runtime import wire_runtime
from fastvla_ros.embedded.wire.waitset import WaitSet


class Context:
    """Holds the participant; `init` opens it and the last node after `shutdown` closes it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ok = False
        self._ended = False
        self._participant: Participant | None = None
        self._graph: Graph | None = None
        self._waitset: WaitSet | None = None
        self._nodes = 0
        self.executors = 0
        self._callbacks: list[Callable[[], Any]] = []
        self._wakers: list[Callable[[], Any]] = []
        self.arguments = RosArguments()
        self.wire_error: BaseException | None = None

    @property
    def factory(self) -> MessageFactory:
        """The process's message classes."""
        return wire_runtime().factory

    @property
    def participant(self) -> Participant:
        """The DDS participant.

        Raises:
            NotInitializedException: before `init`, or after everything was closed.
        """
        if self._participant is None:
            raise NotInitializedException()
        return self._participant

    @property
    def graph(self) -> Graph:
        """The view of the ROS graph."""
        if self._graph is None:
            raise NotInitializedException()
        return self._graph

    @property
    def waitset(self) -> WaitSet:
        """What waits for the wire; it outlasts the participant, for executors that end."""
        if self._waitset is None:
            raise NotInitializedException()
        return self._waitset

    def init(
        self,
        args: Sequence[str] | None = None,
        *,
        initialize_logging: bool = True,
        domain_id: int | None = None,
    ) -> None:
        """Join the domain and read `--ros-args`.

        Args:
            args: The command line; None is `sys.argv`.
            domain_id: None is ROS_DOMAIN_ID.
        Raises:
            RuntimeError: the context was initialised before.
            RosError: the arguments or the environment are not usable.
        """
        del initialize_logging
        with self._lock:
            if self._participant is not None:
                raise RuntimeError("Context.init() must only be called once")
            self.arguments = parse_arguments(sys.argv if args is None else args)
            runtime = wire_runtime()
            self._participant = Participant(
                runtime.factory.store,
                domains=runtime.domains,
                domain_id=environment_domain_id() if domain_id is None else domain_id,
                enclave=self.arguments.enclave,
                on_error=weak_method(self._fail),
            )
            self._graph = Graph(self._participant)
            self._waitset = self._participant.waitset
            self._ok = True

    def ok(self) -> bool:
        """Whether the context is initialised and not shut down."""
        return self._ok

    def get_domain_id(self) -> int:
        """The DDS domain id."""
        return self.participant.domain_id

    def shutdown(self) -> None:
        """End the context: executors stop, publishing raises; nodes can still be destroyed.

        Raises:
            RuntimeError: it is not initialised, or was shut down before.
        """
        if not self._ok:
            raise RuntimeError("Context must be initialized before it can be shutdown")
        self.try_shutdown()

    def try_shutdown(self) -> None:
        """Like `shutdown`, but a second call does nothing."""
        with self._lock:
            if not self._ok:
                return
            self._ok, self._ended = False, True
            callbacks, self._callbacks = self._callbacks, []
        self._wake()
        try:
            for callback in callbacks:
                callback()
        finally:
            self._close_if_unused()

    def on_shutdown(self, callback: Callable[[], Any]) -> None:
        """Call `callback` once, when the context is shut down; at once if it has been.

        Raises:
            TypeError: it cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"callback should be a callable, got {type(callback)}")
        with self._lock:
            if not self._ended:
                self._callbacks.append(callback)
                return
        callback()

    def add_waker(self, waker: Callable[[], Any]) -> None:
        """Have `waker` called at shutdown and when the wire fails."""
        with self._lock:
            self._wakers.append(waker)

    def remove_waker(self, waker: Callable[[], Any]) -> None:
        """Undo `add_waker`."""
        with self._lock:
            self._wakers.remove(waker)

    def executor_created(self) -> None:
        """Count an executor, whether it spins or not."""
        with self._lock:
            self.executors += 1

    def executor_ended(self) -> None:
        """Forget an executor."""
        with self._lock:
            self.executors -= 1

    def node_created(self) -> None:
        """Count a node, which keeps the participant open."""
        with self._lock:
            if not self._ok:
                raise NotInitializedException()
            self._nodes += 1

    def node_destroyed(self) -> None:
        """Forget a node."""
        with self._lock:
            self._nodes -= 1
        self._close_if_unused()

    def __enter__(self) -> Context:
        self.init()
        return self

    def __exit__(self, *_: object) -> None:
        self.try_shutdown()

    def _wake(self) -> None:
        with self._lock:
            wakers = list(self._wakers)
        for waker in wakers:
            waker()
        if self._graph is not None:
            self._graph.notify()

    def _fail(self, error: BaseException) -> None:
        """A handler of the wire failed: executors raise its exception."""
        self.wire_error = error
        self._wake()

    def _close_if_unused(self) -> None:
        with self._lock:
            if self._ok or self._nodes or self._participant is None:
                return
            participant, self._participant, self._graph = self._participant, None, None
        participant.close()


def weak_method(method: Callable[..., Any]) -> Callable[..., Any]:
    """A callable that does not keep the method's object alive."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> Any:
        target = reference()
        return target(*args) if target is not None else None

    return call
