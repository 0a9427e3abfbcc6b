"""Trying again, as the Recovery node of Nav2's behaviour trees does."""

from __future__ import annotations

from collections.abc import Iterator

from py_trees.behaviour import Behaviour
from py_trees.common import Status
from py_trees.composites import Composite


class Recovery(Composite):
    """Ticks a task; when it fails, a recovery; when that succeeds, the task again.

    SUCCESS when the task succeeds. FAILURE when the recovery fails, which is how it says that
    there is no point in another try, and when the task has failed after the last one.

    Args:
        retries: How often the task may be tried again.
    """

    def __init__(
        self, name: str, *, task: Behaviour, recovery: Behaviour, retries: int = 5
    ) -> None:
        super().__init__(name, [task, recovery])
        self._task, self._recovery, self._retries = task, recovery, retries
        self._tries = 0

    def tick(self) -> Iterator[Behaviour]:
        """Tick the child whose turn it is."""
        if self.status is not Status.RUNNING:
            self._begin()
        child = self.current_child or self._task
        yield from child.tick()
        if child.status is Status.RUNNING:
            self.status = Status.RUNNING
        elif child is self._task:
            self._after_task(child.status)
        else:
            self._after_recovery(child.status)
        yield self

    def _begin(self) -> None:
        self._tries, self.current_child = 0, self._task
        for child in self.children:
            if child.status is not Status.INVALID:
                child.stop(Status.INVALID)
        self.initialise()

    def _after_task(self, status: Status) -> None:
        if status is Status.SUCCESS or self._tries >= self._retries:
            self.stop(status)
            return
        self.current_child, self.status = self._recovery, Status.RUNNING

    def _after_recovery(self, status: Status) -> None:
        if status is not Status.SUCCESS:
            self.stop(Status.FAILURE)
            return
        self._tries += 1
        self.current_child, self.status = self._task, Status.RUNNING
