"""Writes bags in a thread of its own, one at a time, however many ends come."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Protocol

from fastvla_core.errors import FastVLAError
from fastvla_ros.black_box.goals import End
from fastvla_ros.black_box.ring import Ring
from fastvla_ros.black_box.store import BagStore, Kept

# Writing must not take the processor from what drives the robot.
_NICENESS = 10


class KeeperListener(Protocol):
    """What is told of the work."""

    def on_kept(self, ends: list[End], kept: Kept) -> None:
        """A bag was written."""
        ...

    def on_not_kept(self, ends: list[End], error: FastVLAError) -> None:
        """A bag could not be written."""
        ...


class Keeper:
    """Keeps the ring on disk a moment after each abnormal end.

    While one bag is written, further ends wait and share the next one, so that there are never
    more than two rings in memory.

    Args:
        after_s: How long to go on listening after an end, to see what the robot did then.
        describe: What stands in the bag beside the messages; called when one is written.
    """

    def __init__(
        self,
        ring: Ring,
        store: BagStore,
        *,
        after_s: float,
        describe: Callable[[], Mapping[str, str]],
        listener: KeeperListener,
    ) -> None:
        self._ring, self._store, self._after_s = ring, store, after_s
        self._describe, self._listener = describe, listener
        self._changed = threading.Condition()
        self._waiting: list[End] = []
        self._due_s = 0.0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="black box", daemon=True)
        self._thread.start()

    def keep(self, end: End) -> None:
        """Have the last seconds kept."""
        with self._changed:
            if not self._waiting:
                self._due_s = time.monotonic() + self._after_s
            self._waiting.append(end)
            self._changed.notify()

    def close(self, *, timeout_s: float) -> bool:
        """Write what waits, now; False when that took longer than `timeout_s`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        _be_nice()
        while ends := self._next():
            try:
                kept = self._write(ends)
            except FastVLAError as error:
                self._listener.on_not_kept(ends, error)
            # Whatever else breaks, the next end must still be kept.
            except Exception as error:
                defect = FastVLAError(f"{type(error).__name__}: {error}", mend="report this defect")
                self._listener.on_not_kept(ends, defect)
            else:
                self._listener.on_kept(ends, kept)

    def _next(self) -> list[End]:
        with self._changed:
            while not self._closing:
                rest_s = self._due_s - time.monotonic() if self._waiting else None
                if rest_s is not None and rest_s <= 0:
                    break
                self._changed.wait(rest_s)
            ends, self._waiting = self._waiting, []
            return ends

    def _write(self, ends: list[End]) -> Kept:
        messages = self._ring.snapshot(steady_ns=time.monotonic_ns())
        information = {
            **self._describe(),
            "fastvla.outcome": "failure",
            "fastvla.black_box.ends": json.dumps([asdict(end) for end in ends]),
            "fastvla.black_box.pictures_left_out": json.dumps(self._ring.left_out),
        }
        return self._store.write(messages, reason=ends[0].code, information=information)


def _be_nice() -> None:
    try:
        # On Linux both are those of this thread alone. A thread of a robot that runs at real-time
        # priority has it, too, and would keep a core until the bag is packed, however nice it is.
        if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    except (AttributeError, OSError):
        return  # elsewhere it competes like everybody else
