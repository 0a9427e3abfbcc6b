"""Runs the callbacks of nodes: in the calling thread, or in a pool."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fastvla_core.alarm import Alarm
from fastvla_core.errors import RosError
from fastvla_ros.embedded.rcl.context import Context
from fastvla_ros.embedded.rcl.entity import Entity
from fastvla_ros.embedded.rcl.task import Future, Task, Wakeup
from fastvla_ros.embedded.rcl.timer import Timer
from fastvla_ros.embedded.rcl.utilities import available_threads, get_default_context
from fastvla_ros.embedded.rcl.worker_pool import WorkerPool
from fastvla_ros.embedded.wire.deadlines import deadline, remaining
from fastvla_ros.embedded.wire.waitset import WireAlarm

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node


class TimeoutException(Exception):  # noqa: N818 (rclpy's name)
    """Nothing was ready in time."""


class ShutdownException(Exception):  # noqa: N818 (rclpy's name)
    """The executor was shut down."""


class ExternalShutdownException(Exception):  # noqa: N818 (rclpy's name)
    """The context was shut down while the executor was spinning."""


class ConditionReachedException(Exception):  # noqa: N818 (rclpy's name)
    """The future that was waited for is done."""


def never() -> bool:
    """The condition of a plain spin."""
    return False


class Executor:
    """Finds ready callbacks of its nodes and runs them; exceptions leave through `spin`."""

    def __init__(self, *, context: Context | None = None) -> None:
        self._context = context if context is not None else get_default_context()
        self._lock = threading.RLock()
        self._alarms: list[Alarm] = []
        self._nodes: list[Node] = []
        self._tasks: deque[Task[Any]] = deque()
        self._suspended: set[Task[Any]] = set()
        self._candidates: deque[Entity] = deque()
        self._is_shutdown = False
        self._context.executor_created()
        self._context.add_waker(self.wake)

    @property
    def context(self) -> Context:
        """The context whose end ends the spinning."""
        return self._context

    def add_node(self, node: Node) -> bool:
        """Take care of the node's callbacks; False if it was added before."""
        with self._lock:
            if node in self._nodes:
                return False
            self._nodes = [*self._nodes, node]
            node.executor = self
        self.wake()
        return True

    def remove_node(self, node: Node) -> None:
        """Leave the node alone from now on."""
        with self._lock:
            self._nodes = [other for other in self._nodes if other is not node]
            node._left_executor(self)
        self.wake()

    def get_nodes(self) -> list[Node]:
        """The nodes that this executor takes care of."""
        return list(self._nodes)

    def create_task(
        self, callback: Callable[..., Any] | Coroutine[Any, Any, Any], *args: Any, **kwargs: Any
    ) -> Task[Any]:
        """Run a callable or a coroutine while spinning."""
        task: Task[Any] = Task(callback, args, kwargs, executor=self)
        self._resume(task)
        return task

    def wake(self) -> None:
        """Look for work again."""
        for alarm in tuple(self._alarms):
            alarm.ring()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop spinning, let the nodes go and end the callbacks that wait for something."""
        del timeout_sec
        with self._lock:
            if self._is_shutdown:
                return True
            self._is_shutdown = True
            left = [*self._suspended, *self._tasks]
            self._suspended.clear()
            self._tasks.clear()
        self.wake()
        for task in left:
            task.abandon()
        self._context.remove_waker(self.wake)
        self._context.executor_ended()
        for node in self.get_nodes():
            self.remove_node(node)
        return True

    def spin(self) -> None:
        """Run callbacks until shutdown."""
        while self._context.ok() and not self._is_shutdown:
            self.spin_once()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for one callback and run it; None or a negative timeout waits forever."""
        self._spin_once(timeout_sec, never)

    def spin_until_future_complete(
        self, future: Future[Any], timeout_sec: float | None = None
    ) -> None:
        """Run callbacks until the future is done or the time is over."""
        future.add_done_callback(Wakeup(self.wake))
        end = deadline(timeout_sec)
        while self._context.ok() and not future.done() and not self._is_shutdown:
            self._spin_once(remaining(end), future.done)
            if remaining(end) == 0:
                return

    def spin_once_until_future_complete(
        self, future: Future[Any], timeout_sec: float | None = None
    ) -> None:
        """Like `spin_once`, and return when the future is done too."""
        future.add_done_callback(Wakeup(self.wake))
        self._spin_once(timeout_sec, future.done)

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _spin_once(self, timeout_sec: float | None, condition: Callable[[], bool]) -> None:
        raise NotImplementedError

    def _suspend(self, task: Task[Any]) -> None:
        with self._lock:
            if not self._is_shutdown:
                self._suspended.add(task)
                return
        task.abandon()

    def _resume(self, task: Task[Any]) -> None:
        with self._lock:
            self._suspended.discard(task)
            if not self._is_shutdown:
                self._tasks.append(task)
                self.wake()
                return
        task.abandon()

    def _wait_for_task(self, timeout_sec: float | None, condition: Callable[[], bool]) -> Task[Any]:
        """The next task to run.

        Raises:
            TimeoutException, ShutdownException, ExternalShutdownException,
            ConditionReachedException: there is none, and why.
        """
        end = deadline(timeout_sec)
        self._check_alive()
        # Before the first look, so that what comes during a look rings.
        on_wire = self._may_wait_for_the_wire()
        alarm = WireAlarm(self._context.waitset) if on_wire else Alarm()
        self._alarms.append(alarm)
        try:
            while True:
                self._check_alive()
                if condition():
                    raise ConditionReachedException()
                with self._lock:
                    task = self._next_task()
                if task is not None:
                    return task
                left_s = remaining(end)
                if left_s == 0:
                    raise TimeoutException()
                alarm.wait(_shorter(left_s, self._until_next_timer()))
        finally:
            if isinstance(alarm, WireAlarm):
                alarm.close()
            self._alarms.remove(alarm)

    def _may_wait_for_the_wire(self) -> bool:
        """Whether that spares anything: not beside others, nor where timers end most waits."""
        if self._context.executors != 1:
            return False
        return not any(node.has_fast_timers for node in self._nodes)

    def _check_alive(self) -> None:
        if self._is_shutdown:
            raise ShutdownException()
        if self._context.wire_error is not None:
            raise RosError("the wire thread failed") from self._context.wire_error
        if not self._context.ok():
            raise ExternalShutdownException()

    def _next_task(self) -> Task[Any] | None:
        if self._tasks:
            return self._tasks.popleft()
        # The rest of the last look first, so that one busy entity cannot starve the others.
        return self._claim() or self._claim_anew()

    def _claim_anew(self) -> Task[Any] | None:
        for node in self._nodes:
            self._candidates.extend(node.ready_entities())
        return self._claim()

    def _claim(self) -> Task[Any] | None:
        """The work of the first candidate that has some and may run now."""
        while self._candidates:
            entity = self._candidates.popleft()
            if entity.ready() and entity.callback_group.beginning_execution(entity):
                work = entity.take()
                if work is not None:
                    # Not in a `finally` around the work: the garbage collector may unwind a
                    # callback at any moment and in any thread, where no lock may be taken.
                    return Task(work, executor=self, at_end=_EndOfWork(entity, self))
                entity.callback_group.ending_execution(entity)
        return None

    def _until_next_timer(self) -> float | None:
        waits = [
            timer.wall_seconds_until_ready()
            for node in self._nodes
            for timer in node.timers
            if isinstance(timer, Timer) and timer.callback_group.can_execute(timer)
        ]
        return min((wait for wait in waits if wait is not None), default=None)


class _EndOfWork(Wakeup):
    """Gives back the right to run, for which others may wait."""

    def __init__(self, entity: Entity, executor: Executor) -> None:
        self._entity, self._executor = entity, executor

    def __call__(self, _task: Any) -> None:
        self._entity.callback_group.ending_execution(self._entity)
        self._executor.wake()


def _shorter(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)


class SingleThreadedExecutor(Executor):
    """Runs callbacks in the thread that spins."""

    def _spin_once(self, timeout_sec: float | None, condition: Callable[[], bool]) -> None:
        try:
            task = self._wait_for_task(timeout_sec, condition)
        except (TimeoutException, ShutdownException, ConditionReachedException):
            return
        task()
        task.result()


class MultiThreadedExecutor(Executor):
    """Runs callbacks in a pool of threads; callback groups say which may overlap."""

    def __init__(self, num_threads: int | None = None, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        if num_threads == 1:
            warnings.warn(
                "MultiThreadedExecutor is used with a single thread.\n"
                "Use the SingleThreadedExecutor instead.",
                stacklevel=2,
            )
        self._pool = WorkerPool(num_threads or available_threads())
        self._failed: deque[Task[Any]] = deque()

    def shutdown(self, timeout_sec: float | None = None, *, wait_for_threads: bool = True) -> bool:
        """Stop spinning and wait for running callbacks, but for the one that calls this.

        Args:
            timeout_sec: None and negative numbers wait for ever.
        Returns:
            Whether they ended in time.
        """
        super().shutdown(timeout_sec)
        return self._pool.shutdown(timeout_sec, wait=wait_for_threads)

    def _spin_once(self, timeout_sec: float | None, condition: Callable[[], bool]) -> None:
        try:
            task = self._wait_for_task(timeout_sec, lambda: bool(self._failed) or condition())
        except (
            TimeoutException,
            ShutdownException,
            ExternalShutdownException,
            ConditionReachedException,
        ):
            pass
        else:
            self._pool.submit(self._run, task)
        if self._failed:
            self._failed.popleft().result()

    def _run(self, task: Task[Any]) -> None:
        task()
        if task.exception() is not None:
            self._failed.append(task)
            self.wake()
