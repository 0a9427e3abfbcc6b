"""Takes goals from the action server, one at a time, and finishes each with a result."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastvla_core.errors import RosError
from fastvla_ros.nodes.goal_session import GoalSession
from fastvla_ros.nodes.goal_types import GoalCode, GoalEnd, Instant, Outcome, Tick, most_urgent
from fastvla_ros.nodes.policy_server_parameters import OnBusy

# Between the answer "accepted" and the call that hands the goal over; then the client is gone.
_HANDOVER_S = 1.0


class GoalNotStartedError(RosError):
    """An accepted goal must not start any more; `code` is how it ends."""

    def __init__(self, code: GoalCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class DeskListener(Protocol):
    """What the desk needs from its node."""

    def now(self) -> Instant:
        """Both clocks."""
        ...

    def start(self, request: Any) -> GoalSession:
        """A session for an accepted request.

        Raises:
            GoalNotStartedError: the server was stopped or deactivated since it was accepted.
        """
        ...

    def publish(self, session: GoalSession, tick: Tick, goal_handle: Any) -> None:
        """Send what a tick asks for."""
        ...

    def finish(self, goal_handle: Any, end: GoalEnd) -> None:
        """Bring the action's goal to its final state; only then does the next one start."""
        ...

    def on_error(self, error: Exception) -> None:
        """Log a defect; the goal has been ended."""
        ...


@dataclass(slots=True, eq=False)
class _Entry:
    handle: Any
    session: GoalSession | None = None
    end: GoalEnd | None = None
    request: tuple[GoalCode, str] | None = None
    done: threading.Event = field(default_factory=threading.Event)


class GoalDesk:
    """One goal runs; with preemption, a newer one waits for it to end.

    Goals are told apart by their id, so a late cancel of an old goal never stops the next one.
    """

    def __init__(self, listener: DeskListener) -> None:
        self._listener = listener
        self._changed = threading.Condition(threading.RLock())
        self._ticking = threading.Lock()
        self._entries: dict[bytes, _Entry] = {}
        self._running: _Entry | None = None
        self._canceled_early: set[bytes] = set()
        self._handover_until = 0.0

    @property
    def busy(self) -> bool:
        """Whether a goal runs, waits, or is about to be handed over."""
        with self._changed:
            return bool(self._entries) or time.monotonic() < self._handover_until

    @property
    def session(self) -> GoalSession | None:
        """The session that runs."""
        running = self._running
        return running.session if running is not None else None

    def reserve(self, *, on_busy: OnBusy) -> bool:
        """Make room for a goal that is about to be accepted; False when it must be rejected."""
        with self._changed:
            if self.busy and on_busy == "reject":
                return False
            self._handover_until = time.monotonic() + _HANDOVER_S
            return True

    def accepted(self, handle: Any) -> None:
        """Take the accepted goal over and have it executed."""
        key = _key(handle)
        with self._changed:
            self._handover_until = 0.0
            for entry in self._entries.values():
                self._ask(entry, GoalCode.PREEMPTED, "a newer goal took over")
            self._entries[key] = _Entry(handle)
            if key in self._canceled_early:
                self._canceled_early.discard(key)
                self.cancel(handle)
        try:
            handle.execute()
        # A cancel came between the look at the goal's state and its change; it sees it now.
        except RuntimeError:
            handle.execute()

    def cancel(self, handle: Any) -> bool:
        """Cancel a goal; False when it has already ended."""
        with self._changed:
            entry = self._entries.get(_key(handle))
            if entry is not None:
                return self._ask(entry, GoalCode.CANCELED, "canceled")
            # The client knows of the acceptance before `accepted` hands the goal over.
            if handle.is_active:
                self._canceled_early.add(_key(handle))
            return bool(handle.is_active)

    def execute(self, handle: Any) -> GoalEnd:
        """Run a goal to its end; blocks its thread, `tick` in another one drives it."""
        entry = self._entries[_key(handle)]
        try:
            if self._claim(entry):
                entry.done.wait()
        except GoalNotStartedError as error:
            entry.request = (error.code, error.message)
        except Exception as error:
            entry.request = (GoalCode.UNKNOWN, f"{type(error).__name__}: {error}")
            self._listener.on_error(error)
        with self._changed:
            asked = entry.request or (GoalCode.UNKNOWN, "")
            end = entry.end = entry.end or _never_started(*asked)
        try:
            self._listener.finish(handle, end)
        finally:
            with self._changed:
                self._entries.pop(_key(handle), None)
                if self._running is entry:
                    self._running = None
                self._changed.notify_all()
        return end

    def tick(self) -> None:
        """One control tick of the running goal."""
        with self._ticking:
            entry = self._running
            if entry is None or entry.session is None or entry.end is not None:
                return
            try:
                tick = entry.session.tick(self._listener.now())
                self._listener.publish(entry.session, tick, entry.handle)
                end = tick.end
            # A defect must not leave the robot without its last command, nor the client waiting.
            except Exception as error:
                end = entry.session.fail(self._listener.now(), f"{type(error).__name__}: {error}")
                self._listener.on_error(error)
            if end is not None:
                entry.end = end
                entry.done.set()

    def end_all(self, code: GoalCode, message: str, *, timeout_s: float) -> bool:
        """End every goal now; False when a result was not handed over within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            for entry in self._entries.values():
                self._ask(entry, code, message)
        self.tick()
        with self._changed:
            while self._entries:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
        return True

    def _ask(self, entry: _Entry, code: GoalCode, message: str) -> bool:
        if entry.end is not None:
            return False
        if entry.session is not None:
            return entry.session.request_end(code, message)
        if entry.request is None or most_urgent((code, entry.request[0])) is code:
            entry.request = (code, message)
        self._changed.notify_all()
        return True

    def _claim(self, entry: _Entry) -> bool:
        with self._changed:
            while self._running is not None and entry.request is None:
                self._changed.wait()
            if entry.request is not None:
                return False
            self._running = entry
            entry.session = self._listener.start(entry.handle.request)
            return True


def _never_started(code: GoalCode, message: str) -> GoalEnd:
    return GoalEnd(
        code=code,
        message=message,
        outcome=Outcome.UNKNOWN,
        elapsed_s=0.0,
        inferences=0,
        commands_sent=0,
        commands_limited=0,
        deadline_misses=0,
        latency_p50_s=0.0,
        latency_p99_s=0.0,
    )


def _key(handle: Any) -> bytes:
    return bytes(handle.goal_id.uuid)
