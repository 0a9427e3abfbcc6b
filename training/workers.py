"""Pools of worker processes: Ctrl-C is their parent's matter, and they end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from fastvla_core.errors import DatasetError


@contextmanager
def worker_pool(
    workers: int, *, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes; an error or Ctrl-C in the block ends them at once.

    Args:
        start: Called in each process before its first job; must not fail.
        arguments: Of `start`.

    Raises:
        DatasetError: a worker died, for example for lack of memory.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(start, arguments),
    )
    try:
        yield pool
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise DatasetError(
                f"one of {workers} worker processes died", mend="give fewer --workers: memory?"
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    follow_parent()
    if start is not None:
        start(*arguments)


def follow_parent() -> None:
    """Make this process ignore Ctrl-C and end when its parent does.

    A parent that is killed cannot tell its workers, which would wait for work for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
