"""The one thread that waits for the wire: it takes samples and reports status changes."""

from __future__ import annotations

import ctypes as ct
import itertools
import threading
from collections.abc import Callable

from cyclonedds.core import Entity, GuardCondition
from cyclonedds.domain import DomainParticipant

from fastvla_ros.embedded.wire import rawio

Handler = Callable[[int], None]
SLOTS = 128


class WaitSetThread:
    """Calls a handler, with the raised status bits, for each entity that has something.

    Handlers run in this thread, so they only queue and notify. One that raises ends the thread
    and hands its exception to `on_error`.
    """

    def __init__(
        self, participant: DomainParticipant, *, on_error: Callable[[BaseException], None]
    ) -> None:
        self._lib = rawio.library()
        self._waitset = rawio.check(
            self._lib.dds_create_waitset(participant._ref), "dds_create_waitset"
        )
        self._tokens = itertools.count(1)
        self._attached: dict[int, tuple[Entity, int, Handler]] = {}
        self._on_error = on_error
        self._stopping = False
        self._guard = GuardCondition(participant)
        rawio.check(self._lib.dds_waitset_attach(self._waitset, self._guard._ref, 0), "attach")
        self._thread = threading.Thread(target=self._run, name="dds-waitset", daemon=True)
        self._thread.start()

    def attach(self, entity: Entity, statuses: int, handler: Handler) -> int:
        """Watch an entity's statuses; the token that is returned detaches it."""
        token = next(self._tokens)
        self._attached[token] = (entity, statuses, handler)
        rawio.check(self._lib.dds_set_status_mask(entity._ref, statuses), "dds_set_status_mask")
        rawio.check(self._lib.dds_waitset_attach(self._waitset, entity._ref, token), "attach")
        return token

    def detach(self, token: int) -> None:
        """Stop watching; a handler that is running may still finish."""
        entity, _, _ = self._attached.pop(token)
        self._lib.dds_waitset_detach(self._waitset, entity._ref)

    def stop(self) -> None:
        """End the thread and delete the wait set."""
        self._stopping = True
        self._guard.set(True)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._lib.dds_delete(self._waitset)

    def _run(self) -> None:
        fired = (ct.c_ssize_t * SLOTS)()
        try:
            while not self._stopping:
                count = self._lib.dds_waitset_wait(self._waitset, fired, SLOTS, rawio.INFINITE)
                rawio.check(count, "dds_waitset_wait")
                for token in fired[: min(count, SLOTS)]:
                    self._dispatch(token)
        except BaseException as error:
            self._on_error(error)

    def _dispatch(self, token: int) -> None:
        attached = self._attached.get(token)
        if attached is None:
            return
        entity, statuses, handler = attached
        status = ct.c_uint32()
        code = self._lib.dds_take_status(entity._ref, ct.byref(status), statuses)
        if code not in rawio.ALREADY_DELETED:
            rawio.check(code, f"status of {entity!r}")
            handler(status.value)
