"""What malloc does with the memory of images that are done with."""

from __future__ import annotations

import ctypes as ct
import os

# <malloc.h>; the values are the highest that glibc reaches by itself.
M_TRIM_THRESHOLD, TRIM_BYTES = -1, 64 << 20
M_MMAP_THRESHOLD, MMAP_BYTES = -3, 32 << 20
M_ARENA_MAX, ARENAS = -8, 1


def keep_freed_memory() -> None:
    """Have malloc keep up to 64 MB for the next images.

    By default it hands the memory of most images back to the kernel, which gives it out again page
    by page, zeroed: 0.8 ms of CPU for each image of 640x480, on both sides.

    All threads share one heap: with one for every thread, what one of them frees is of no use to
    the others, and memory grows for hours. Whoever set malloc up in the environment keeps that.
    """
    if any(name in os.environ for name in ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_")):
        return
    # Only glibc has it.
    mallopt = getattr(ct.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
        mallopt(M_ARENA_MAX, ARENAS)
