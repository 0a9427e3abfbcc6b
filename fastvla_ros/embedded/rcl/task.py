"""Futures, and tasks that an executor runs."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.executors import Executor

T = TypeVar("T")


class Future(Generic[T]):
    """A result that is not there yet; may be awaited in a callback of an executor."""

    # Of a new one. In the class, because one is made for every callback.
    _done = False
    _cancelled = False
    _result: T | None = None
    _exception: BaseException | None = None
    _exception_fetched = False

    def __init__(self, *, executor: Executor | None = None) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Any], Any]] = []
        self._set_executor(executor)

    def __del__(self) -> None:
        if self._exception is not None and not self._exception_fetched:
            print(
                f"The following exception was never retrieved: {self._exception!r}",
                file=sys.stderr,
            )

    def __await__(self) -> Generator[Any, None, T | None]:
        while not self._done:
            yield self
        return self.result()

    def cancel(self) -> None:
        """Mark as cancelled, unless it is done."""
        self._finish(cancelled=True)

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    def done(self) -> bool:
        """Whether there is a result or an exception, or it was cancelled."""
        return self._done

    def result(self) -> T | None:
        """The result (None while there is none); raises the exception if there is one."""
        if self._exception is not None:
            self._exception_fetched = True
            raise self._exception
        return self._result

    def exception(self) -> BaseException | None:
        """The exception, if it ended in one."""
        self._exception_fetched = True
        return self._exception

    def set_result(self, result: T) -> None:
        """Finish with a result."""
        self._finish(result=result)

    def set_exception(self, exception: BaseException) -> None:
        """Finish with an exception."""
        self._finish(exception=exception)

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Have `callback(self)` called when done: in the executor if there is one."""
        with self._lock:
            if not self._done:
                self._callbacks.append(callback)
                return
        self._invoke(callback)

    def remove_done_callback(self, callback: Callable[[Any], Any]) -> bool:
        """Undo `add_done_callback`; whether it was there."""
        with self._lock:
            found = callback in self._callbacks
            if found:
                self._callbacks.remove(callback)
            return found

    def _set_executor(self, executor: Executor | None) -> None:
        self._executor = None if executor is None else weakref.ref(executor)

    def _finish(
        self,
        *,
        result: T | None = None,
        exception: BaseException | None = None,
        cancelled: bool = False,
    ) -> None:
        with self._lock:
            if self._done:
                return
            self._result, self._exception, self._cancelled = result, exception, cancelled
            self._done = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._invoke(callback)

    def _invoke(self, callback: Callable[[Any], Any]) -> None:
        executor = None if self._executor is None else self._executor()
        if executor is None or isinstance(callback, Wakeup):
            callback(self)
        else:
            executor.create_task(callback, self)


class Wakeup:
    """A done callback that never blocks, so it runs at once and not as a task."""

    def __init__(self, notify: Callable[[], Any]) -> None:
        self._notify = notify

    def __call__(self, _future: Any) -> None:
        self._notify()


class Task(Future[T]):
    """A callable or a coroutine that an executor runs; `await` inside suspends it."""

    def __init__(
        self,
        handler: Callable[..., Any] | Coroutine[Any, Any, Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        executor: Executor | None = None,
        *,
        at_end: Wakeup | None = None,
    ) -> None:
        super().__init__(executor=executor)
        if at_end is not None:
            self._callbacks.append(at_end)
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._handler: Callable[..., Any] | None = None
        if callable(handler):
            self._handler = handler
        else:
            self._coroutine = handler
        self._args = args
        self._kwargs = kwargs or {}

    def __call__(self) -> None:
        """Run until done or until something is awaited; then the executor gets it back."""
        try:
            if self._coroutine is None and self._handler is not None:
                result = self._handler(*self._args, **self._kwargs)
                if not isinstance(result, CoroutineType):
                    self.set_result(result)
                    return
                self._coroutine = result
            self._step()
        except BaseException as error:
            self.set_exception(error)
            if not isinstance(error, Exception):
                # Somebody hears of it right here: a KeyboardInterrupt, most often.
                self._exception_fetched = True
                raise

    def abandon(self) -> None:
        """End a task that will not go on: its coroutines are closed, the outermost first.

        Left to the garbage collector they are closed in any order, and an outer one may find the
        inner one busy closing.
        """
        try:
            if self._coroutine is not None:
                self._coroutine.close()
        except Exception as error:
            self.set_exception(error)
        self.cancel()

    def _step(self) -> None:
        assert self._coroutine is not None
        try:
            awaited = self._coroutine.send(None)
        except StopIteration as stop:
            self.set_result(stop.value)
            return
        executor = None if self._executor is None else self._executor()
        if executor is None:
            return
        if isinstance(awaited, Future):
            executor._suspend(self)
            awaited.add_done_callback(Wakeup(lambda: executor._resume(self)))
        else:
            executor._resume(self)
