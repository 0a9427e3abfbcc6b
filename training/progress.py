"""One progress line on stderr for work that is counted in items."""

from __future__ import annotations

import sys

from tqdm import tqdm


class CountBar:
    """Items done of all items; call it with (done, total, frames)."""

    def __init__(self, unit: str) -> None:
        self._bar = tqdm(unit=f" {unit}", file=sys.stderr, dynamic_ncols=True, disable=None)

    def __enter__(self) -> CountBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, done: int, total: int, frames: int) -> None:
        """Show how far it is."""
        if self._bar.total != total:
            self._bar.total = total
            # What an earlier run had done already says nothing about the speed of this one.
            self._bar.initial = self._bar.n = done - 1
        self._bar.update(done - self._bar.n)
        self._bar.set_postfix(frames=frames)
