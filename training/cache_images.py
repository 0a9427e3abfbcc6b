"""The pictures of one camera of a cache, by row, out of the files of its episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DatasetError
from training.cache_shard import Shard


class CachedImages:
    """Rows give uint8 [..., H, W, 3] RGB; nothing is kept in memory.

    Raises:
        DatasetError: the episodes' pictures differ in size.
    """

    def __init__(self, shards: Sequence[Shard], *, camera: str) -> None:
        self._shards, self._camera = shards, camera
        lengths = np.asarray([len(shard) for shard in shards], np.int64)
        self._ends = np.cumsum(lengths)
        self._first = self._ends - lengths
        shapes = {shard.shape(camera) for shard in shards}
        if len(shapes) > 1:
            raise DatasetError(
                f"camera '{camera}': pictures of {len(shapes)} sizes: {sorted(shapes)}",
                mend="convert again with `--image-size`, or keep the recordings apart",
            )
        (self._shape,) = shapes

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, H, W, 3]."""
        return len(self), *self._shape

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures when unpacked."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def stored_bytes(self) -> int:
        """Bytes of all pictures as stored."""
        return sum(int(s.columns[f"place.{self._camera}"][:, 1].sum()) for s in self._shards)

    @property
    def is_raw(self) -> bool:
        """Whether reading is a mere copy."""
        return all(shard.is_raw(self._camera) for shard in self._shards)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Pictures of an index, a slice, or integers [...]."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        wanted = np.asarray(rows, np.int64)
        out = np.empty((*wanted.shape, *self._shape), np.uint8)
        self.read(wanted.reshape(-1), out=out.reshape(-1, *self._shape))
        return out

    def read(self, rows: NDArray[np.int64], *, out: NDArray[np.uint8]) -> None:
        """The pictures of `rows` [N] into `out` [N, H, W, 3], contiguous."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        inside = rows - self._first[np.minimum(numbers, len(self._first) - 1)]
        for k, (number, row) in enumerate(zip(numbers.tolist(), inside.tolist())):
            self._shards[number].read_picture(self._camera, row, out=out[k])
