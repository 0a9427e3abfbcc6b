"""The one thread that waits for the wire: it takes samples and reports status changes."""

from __future__ import annotations

import ctypes as ct
import itertools
import threading
from collections.abc import Callable

from fastvla_ros.embedded.wire.libddsc import (
    ALREADY_DELETED,
    INFINITE_NS,
    check,
    library,
    quick_calls,
)

Handler = Callable[[int], None]
SLOTS = 128


class WaitSetThread:
    """Calls a handler, with the raised status bits, for each entity that has something.

    Handlers run in this thread, so they only queue and notify. One that raises ends the thread
    and hands its exception to `on_error`.
    """

    def __init__(self, participant: int, *, on_error: Callable[[BaseException], None]) -> None:
        self._lib = library()
        self._take_status = quick_calls().dds_take_status
        self._status = ct.c_uint32()
        self._waitset = check(self._lib.dds_create_waitset(participant), "dds_create_waitset")
        self._tokens = itertools.count(1)
        self._attached: dict[int, tuple[int, int, Handler]] = {}
        self._on_error = on_error
        self._stopping = False
        self._guard = check(self._lib.dds_create_guardcondition(participant), "a guard condition")
        check(self._lib.dds_waitset_attach(self._waitset, self._guard, 0), "attach")
        self._thread = threading.Thread(target=self._run, name="dds-waitset", daemon=True)
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
        self._lib.dds_set_guardcondition(self._guard, True)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._lib.dds_delete(self._waitset)

    def _run(self) -> None:
        fired = (ct.c_ssize_t * SLOTS)()
        try:
            while not self._stopping:
                count = self._lib.dds_waitset_wait(self._waitset, fired, SLOTS, INFINITE_NS)
                check(count, "dds_waitset_wait")
                for token in fired[: min(count, SLOTS)]:
                    self._dispatch(token)
        except BaseException as error:
            self._on_error(error)

    def _dispatch(self, token: int) -> None:
        attached = self._attached.get(token)
        if attached is None:
            return
        entity, statuses, handler = attached
        code = self._take_status(entity, ct.byref(self._status), statuses)
        if code not in ALREADY_DELETED:
            check(code, "dds_take_status")
            handler(self._status.value)
