"""How many bytes are alive at most while something is computed, on real tensors or on fake ones."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the memory that operations make and let go of, views once.

    Attributes:
        peak: Most bytes that were alive at once, beside what was there before.
    """

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak = self._alive = 0
        # Held, so that no address of theirs is given to something new.
        self._before = [tensor.untyped_storage() for tensor in before]
        self._known = {storage._cdata for storage in self._before}
        self._watched: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and look at what it made."""
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return found

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def freed(_: object) -> None:
            self._known.discard(key)
            del self._watched[key]
            self._alive -= size

        self._known.add(key)
        self._watched[key] = weakref.ref(storage, freed)
        self._alive += size
        self.peak = max(self.peak, self._alive)


def training_peak(model: nn.Module, loss: Callable[[], Tensor], batch: Iterable[Tensor]) -> int:
    """Most bytes that a forward and a backward pass hold beside weights, batch and gradients.

    Gradients are let go of one by one as soon as they are there: they are counted apart.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    handles = [p.register_post_accumulate_grad_hook(_dropped) for p in trained]
    try:
        with LiveBytes([*model.parameters(), *model.buffers(), *batch]) as live:
            loss().backward()
    finally:
        for handle in handles:
            handle.remove()
    return live.peak


def _dropped(parameter: Tensor) -> None:
    parameter.grad = None
