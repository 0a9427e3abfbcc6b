"""Which callbacks may run at the same time."""

from __future__ import annotations

import threading
import weakref
from typing import Any


class CallbackGroup:
    """Base of the groups; an executor asks before it runs a callback."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entities: weakref.WeakSet[Any] = weakref.WeakSet()

    def add_entity(self, entity: Any) -> None:
        """Put an entity under this group's rule."""
        self._entities.add(entity)

    def has_entity(self, entity: Any) -> bool:
        """Whether the entity is under this group's rule."""
        return entity in self._entities

    def can_execute(self, entity: Any) -> bool:
        """Whether a callback of the entity may start now."""
        raise NotImplementedError

    def beginning_execution(self, entity: Any) -> bool:
        """Claim the right to run; False if it may not."""
        raise NotImplementedError

    def ending_execution(self, entity: Any) -> None:
        """Give the right back."""
        raise NotImplementedError


class ReentrantCallbackGroup(CallbackGroup):
    """Everything may run at the same time, one callback several times over too."""

    def can_execute(self, entity: Any) -> bool:
        return True

    def beginning_execution(self, entity: Any) -> bool:
        return True

    def ending_execution(self, entity: Any) -> None:
        pass


class MutuallyExclusiveCallbackGroup(CallbackGroup):
    """One callback at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._active: Any = None

    def can_execute(self, entity: Any) -> bool:
        return self._active is None

    def beginning_execution(self, entity: Any) -> bool:
        with self._lock:
            if self._active is None:
                self._active = entity
                return True
            return False

    def ending_execution(self, entity: Any) -> None:
        with self._lock:
            assert self._active is entity
            self._active = None
