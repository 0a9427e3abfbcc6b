"""Memory for pictures outside malloc's heaps: what is let go of goes back, whoever held it last.

Pictures come in through one thread and are dropped in another, half a minute later. In malloc's
heaps, one per thread, the holes that they leave add up: 67 MiB of pictures took 100 MiB after two
minutes, and more with every thread that took its turn.
"""

from __future__ import annotations

import mmap
import weakref
from collections import deque

_SLAB_BYTES = 1 << 18
# Larger data has a slab of its own: the rest of a shared one would be wasted.
_SHARED_BYTES = _SLAB_BYTES // 4
# Kept for what comes next: the kernel hands out fresh memory page by page, zeroed, which takes
# longer than the copy.
_SPARE_SLABS = 2


class _Slab:
    """One block from the kernel, filled from its start."""

    def __init__(self, capacity: int) -> None:
        self.memory = memoryview(mmap.mmap(-1, capacity))
        self.capacity = capacity
        self.used = self.live = 0


class Slabs:
    """Copies of data in slabs, each of which is used again when nobody has a view of it any more.

    Meant for data that is dropped in about the order in which it came: one view keeps its slab.
    Views may be dropped in any thread; `copy` may be called in one at a time.
    """

    def __init__(self) -> None:
        self._current: _Slab | None = None
        self._spare: deque[_Slab] = deque(maxlen=_SPARE_SLABS)
        # Whoever drops a view may hold any lock, so that is all that is done there.
        self._dropped: deque[_Slab] = deque()

    def copy(self, data: bytes | memoryview) -> memoryview:
        """A read-only copy, good while somebody holds this very view, not one that is cut of it."""
        self._collect()
        slab = self._slab_for(len(data))
        view = slab.memory[slab.used : slab.used + len(data)]
        view[:] = data
        view = view.toreadonly()
        slab.used += len(data)
        slab.live += 1
        weakref.finalize(view, self._dropped.append, slab).atexit = False
        return view

    def _slab_for(self, size: int) -> _Slab:
        if size > _SHARED_BYTES:
            return self._empty(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        if self._current is None or self._current.used + size > _SLAB_BYTES:
            full, self._current = self._current, self._empty(_SLAB_BYTES)
            if full is not None and not full.live:
                self._give_back(full)
        return self._current

    def _empty(self, capacity: int) -> _Slab:
        for slab in self._spare:
            if slab.capacity == capacity:
                self._spare.remove(slab)
                return slab
        return _Slab(capacity)

    def _collect(self) -> None:
        while self._dropped:
            slab = self._dropped.popleft()
            slab.live -= 1
            if not slab.live and slab is not self._current:
                self._give_back(slab)

    def _give_back(self, slab: _Slab) -> None:
        slab.used = 0
        # The oldest spare one goes back to the kernel.
        self._spare.append(slab)
