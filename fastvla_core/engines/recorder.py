"""Recording work over static buffers, to repeat it: as a CUDA graph, or by calling it again.

Everything else in this package is the same on every device; the lines that only a GPU can run are
in `CudaRecorder`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from fastvla_core.engines.trees import tensors_of, with_tensors

T = TypeVar("T")
_WARM_UP_RUNS = 3


@dataclass(frozen=True, slots=True)
class Recording(Generic[T]):
    """Work that can be repeated.

    Attributes:
        outputs: What the work returned; each replay writes new values into the same tensors.
        replay: Repeats the work on what its input buffers hold now.
    """

    outputs: T
    replay: Callable[[], None]


class Recorder(Protocol):
    """Records work whose inputs are in buffers that stay where they are."""

    def record(self, work: Callable[[], T]) -> Recording[T]:
        """Run the work, and make it repeatable."""
        ...


class EagerRecorder:
    """Repeats by calling the work again: the same engine on any device, without a graph."""

    def record(self, work: Callable[[], T]) -> Recording[T]:
        """Run once; a replay copies what a further run returns over the first result."""
        found = work()
        # What is one value seen many times cannot be written to.
        owned = (t.contiguous() if 0 in t.stride() else t for t in tensors_of(found))
        outputs = with_tensors(found, owned)

        def replay() -> None:
            for old, new in zip(tensors_of(outputs), tensors_of(work()), strict=True):
                old.copy_(new)

        return Recording(outputs, replay)


class CudaRecorder:
    """Captures the work as a CUDA graph; all graphs of one recorder share their memory.

    They may share it because they are replayed one at a time, and because outputs are held by
    their recordings: only what is temporary within one graph is used again by another.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def record(self, work: Callable[[], T]) -> Recording[T]:
        """Warm up, capture, and replay once, so that the outputs hold values."""
        with torch.cuda.device(self._device):
            # Kernels compile, libraries choose and allocate in these runs: none of that may happen
            # inside of the capture.
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP_RUNS):
                    work()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Threads that decode cameras may allocate on the device meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                outputs = work()
            graph.replay()
        return Recording(outputs, graph.replay)
