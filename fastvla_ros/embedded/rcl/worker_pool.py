"""The threads of a multi-threaded executor."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

Running = concurrent.futures.Future[Any]


class WorkerPool:
    """Runs functions in threads, and can be ended from one of them."""

    def __init__(self, threads: int) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(
            threads, "executor", initializer=self._remember_thread
        )
        self._threads: set[int] = set()
        self._running: set[Running] = set()
        self._start_all(threads)

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        """Have a function run when a thread is free."""
        running = self._pool.submit(function, *args)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    def shutdown(self, timeout_s: float | None, *, wait: bool) -> bool:
        """Take nothing more, and wait for what runs, but not for the calling thread's own.

        Args:
            timeout_s: None and negative numbers wait for ever.
        Returns:
            Whether everything ended in time.
        """
        if not wait or threading.get_ident() in self._threads:
            self._pool.shutdown(wait=False)
            return not self._running
        limit_s = None if timeout_s is None or timeout_s < 0 else timeout_s
        late = concurrent.futures.wait(set(self._running), limit_s).not_done
        self._pool.shutdown(wait=not late)
        return not late

    def _start_all(self, threads: int) -> None:
        """Start every thread now: one that Ctrl-C finds half started is never joined nor ended."""
        all_started = threading.Event()
        try:
            for _ in range(threads):
                self._pool.submit(all_started.wait)
        finally:
            all_started.set()

    def _remember_thread(self) -> None:
        self._threads.add(threading.get_ident())
