"""Waits for the wire: takes samples and reports status changes.

One thread at a time waits, and calls the handlers: who holds the role. An executor with nothing to
do takes it (`WireAlarm.wait`), so that a message needs no second thread on its way to its callback.
It leaves the role for the callback. If nobody has taken it soon after that, the standing thread
does, until the executor is idle again. So the wire is served whatever the executor does. Where
there are several, or one that mostly waits for fast timers, handing the role to and fro would cost
more than it spares: the standing thread keeps it.
"""

from __future__ import annotations

import ctypes as ct
import itertools
import math
import threading
from collections.abc import Callable

from fastvla_core.alarm import Alarm
from fastvla_ros.embedded.wire.libddsc import (
    ALREADY_DELETED,
    INFINITE_NS,
    check,
    library,
    quick_calls,
)
from fastvla_ros.embedded.wire.one_shot import NS, OneShot
from fastvla_ros.embedded.wire.signal_relay import signal_relay

Handler = Callable[[int], None]
SLOTS = 128
GUARD = 0
# How long nobody may wait before the standing thread does. Most callbacks are shorter, and cost it
# nothing then; others hear of the graph and of lost samples so much later.
VACANT_NS = 2_000_000
STOP_TIMEOUT_S = 1.0


class WaitSet:
    """Calls a handler, with the raised status bits, for each entity that has something.

    Handlers run in whatever thread has the role, so they only queue and notify. What one raises
    goes to `on_error`.
    """

    def __init__(self, participant: int, *, on_error: Callable[[BaseException], None]) -> None:
        self.on_error = on_error
        self._lib = library()
        self._take_status = quick_calls().dds_take_status
        self._status = ct.c_uint32()
        self._status_at = ct.byref(self._status)
        self._fired = (ct.c_ssize_t * SLOTS)()
        self._waitset = check(self._lib.dds_create_waitset(participant), "dds_create_waitset")
        self._tokens = itertools.count(GUARD + 1)
        self._attached: dict[int, tuple[int, int, Handler]] = {}
        self._stopping = False
        self._guard = check(self._lib.dds_create_guardcondition(participant), "a guard condition")
        check(self._lib.dds_waitset_attach(self._waitset, self._guard, GUARD), "attach")
        # Reentrant for a signal's handler, which runs inside of whatever the main thread does.
        self._role = threading.RLock()
        self._line: list[WireAlarm] = []
        self._vacancy = OneShot(VACANT_NS)
        self._vacancy.fire()
        self._thread = threading.Thread(target=self._stand_in, name="dds-waitset", daemon=True)
        self._thread.start()

    def attach(self, entity: int, statuses: int, handler: Handler) -> int:
        """Watch the statuses of an entity (a handle); the token that is returned detaches it."""
        token = next(self._tokens)
        self._attached[token] = (entity, statuses, handler)
        check(self._lib.dds_set_status_mask(entity, statuses), "dds_set_status_mask")
        check(self._lib.dds_waitset_attach(self._waitset, entity, token), "attach")
        return token

    def detach(self, token: int) -> None:
        """Stop watching; a handler that is running may still finish."""
        entity, _, _ = self._attached.pop(token)
        self._lib.dds_waitset_detach(self._waitset, entity)

    def stop(self) -> None:
        """End the thread and delete the wait set."""
        self._stopping = True
        self.interrupt()
        self._vacancy.fire()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        # Whoever waits for the wire returns at once. Only a KeyboardInterrupt between two steps of
        # the main thread may have left the role with nobody.
        self._role.acquire(timeout=STOP_TIMEOUT_S)
        self._lib.dds_delete(self._waitset)
        self._vacancy.close()

    def interrupt(self) -> None:
        """Have whoever waits for the wire return."""
        self._lib.dds_set_guardcondition(self._guard, True)

    def relieve(self) -> None:
        """Have the standing thread take a free role at once: the caller is about to block."""
        self._vacancy.fire()

    def enter(self, alarm: WireAlarm) -> bool:
        """Take the role if it is free; otherwise `alarm` is rung when it may be."""
        # First, so that who leaves now rings, or has left already.
        if alarm not in self._line:
            self._line.append(alarm)
        if self._stopping or not self._role.acquire(blocking=False):
            return False
        self._vacancy.stop()
        return True

    def leave(self, alarm: WireAlarm, *, leads: bool) -> None:
        """Undo `enter`; the role goes to the next in the line."""
        if alarm in self._line:
            self._line.remove(alarm)
        if leads:
            self._hand_on()

    def wait(self, timeout_ns: int) -> list[int]:
        """Wait until something has come; its tokens for `dispatch`. Only for the role's holder."""
        if self._stopping:
            return []
        count = self._lib.dds_waitset_wait(self._waitset, self._fired, SLOTS, timeout_ns)
        return self._fired[: min(check(count, "dds_waitset_wait"), SLOTS)]

    def dispatch(self, tokens: list[int]) -> None:
        """Call the handlers. Only for the role's holder."""
        for token in tokens:
            if token == GUARD:
                self._lib.dds_set_guardcondition(self._guard, False)
                continue
            attached = self._attached.get(token)
            if attached is None:
                continue
            entity, statuses, handler = attached
            code = self._take_status(entity, self._status_at, statuses)
            if code not in ALREADY_DELETED:
                check(code, "dds_take_status")
                handler(self._status.value)

    def _hand_on(self) -> None:
        # In this order, as whoever takes the role stops the time.
        self._vacancy.start()
        self._role.release()
        for alarm in self._line[:1]:
            alarm.ring()

    def _stand_in(self) -> None:
        try:
            while not self._stopping:
                self._vacancy.wait()
                if self._role.acquire(blocking=False):
                    self._serve_until_somebody_is_idle()
        except BaseException as error:
            self.on_error(error)

    def _serve_until_somebody_is_idle(self) -> None:
        try:
            while not self._stopping:
                self.dispatch(self.wait(INFINITE_NS))
                if self._line:
                    break
        finally:
            self._hand_on()


class WireAlarm(Alarm):
    """An alarm whose wait serves the wire if nobody else does; `close` it after the last wait."""

    __slots__ = ("_leads", "_rung", "_waits", "_waitset")

    def __init__(self, waitset: WaitSet) -> None:
        super().__init__()
        self._waitset = waitset
        self._leads = self._rung = self._waits = False

    def ring(self) -> None:
        """End the wait, or the next one."""
        # In this order, and the other way round where it waits: one of the two sees the other.
        self._rung = True
        if self._waits:
            self._waitset.interrupt()
        elif not self._leads:
            super().ring()

    def wait(self, timeout_s: float | None) -> None:
        """Wait until it has rung since the last wait, or something came; None waits for ever."""
        if self._leads or self._take_the_lead():
            try:
                self._serve(timeout_s)
            # Not a KeyboardInterrupt, which is none of the wire's.
            except Exception as error:
                self._waitset.on_error(error)
        else:
            super().wait(timeout_s)

    def close(self) -> None:
        """Leave the wire to others."""
        leads, self._leads = self._leads, False
        self._waitset.leave(self, leads=leads)

    def _take_the_lead(self) -> bool:
        # Without the relay the main thread might never come to its signal handlers. It is asked
        # first, as nobody stands in the line who cannot take the role.
        is_main = threading.current_thread() is threading.main_thread()
        self._leads = (not is_main or signal_relay().watch(self)) and self._waitset.enter(self)
        return self._leads

    def _serve(self, timeout_s: float | None) -> None:
        timeout_ns = INFINITE_NS if timeout_s is None else math.ceil(max(timeout_s, 0.0) * NS)
        self._waits = True
        try:
            came = [] if self._rung else self._waitset.wait(min(timeout_ns, INFINITE_NS))
        finally:
            self._waits = False
        self._waitset.dispatch(came)
        # What rang until now is found by whoever looks after this.
        self._rung = False
