"""Requests of fixed shapes: static input buffers, one prepared execution for each set of shapes.

A prompt is padded to the next of a few lengths, so that a handful of shapes serves every
instruction; masks are tensors like all else, so a camera may come and go within one shape.
Shapes: b batch, l language tokens, t action steps, a action dimensions.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from fastvla_core.engines.interface import Batch, FlowRequest
from fastvla_core.engines.names import EngineName

# What a flow policy reads of a batch; `action` and the like belong to training.
INPUTS = ("images", "image_mask", "tokens", "token_mask", "words", "state")
_PROMPT = ("tokens", "token_mask", "words")
# Each holds buffers and, as a graph, all intermediate values: the least recently used one goes.
MAX_SHAPES = 16

Signature = tuple[tuple[tuple[int, ...], torch.dtype], ...]


def prompt_length(tokens: int, *, lengths: Sequence[int], longest: int) -> int:
    """The length that a prompt is padded to: the next one, but no more than the policy reads."""
    return next((n for n in sorted(lengths) if tokens <= n < longest), max(tokens, longest))


@dataclass(frozen=True, slots=True)
class StaticRequest:
    """Buffers that every request of these shapes is copied into.

    Attributes:
        inputs: As in the batch of the network.
        noise_bta: Where the flow starts, float32.
    """

    inputs: dict[str, Tensor]
    noise_bta: Tensor

    @classmethod
    def like(cls, batch: Batch, noise_bta: Tensor, *, prompt: int) -> StaticRequest:
        """Empty buffers for requests like this one, with a prompt of that length."""
        inputs = {
            name: torch.zeros(shape, dtype=batch[name].dtype, device=batch[name].device)
            for name, shape in _shapes(batch, prompt).items()
        }
        return cls(inputs, torch.zeros_like(noise_bta, dtype=torch.float32))

    def fill(self, batch: Batch, noise_bta: Tensor) -> None:
        """Copy a request in; what the batch has not keeps its value."""
        for name, buffer in self.inputs.items():
            if name not in batch:
                continue
            if name in _PROMPT:
                length = min(batch[name].shape[1], buffer.shape[1])
                buffer[:, :length].copy_(batch[name][:, :length])
                buffer[:, length:].zero_()
            else:
                buffer.copy_(batch[name])
        self.noise_bta.copy_(noise_bta)


def signature(batch: Batch, noise_bta: Tensor, *, prompt: int) -> Signature:
    """Equal where the same buffers serve."""
    shapes = _shapes(batch, prompt)
    own = tuple((shape, batch[name].dtype) for name, shape in shapes.items())
    return (*own, (tuple(noise_bta.shape), torch.float32))


def _shapes(batch: Batch, prompt: int) -> dict[str, tuple[int, ...]]:
    return {
        name: (len(batch[name]), prompt, *batch[name].shape[2:])
        if name in _PROMPT
        else tuple(batch[name].shape)
        for name in INPUTS
        if name in batch
    }


class Prepared(Protocol):
    """An execution that reads the buffers of one static request."""

    def run(self) -> Tensor:
        """Actions [b, t, a]; they may be overwritten by the next run."""
        ...


P = TypeVar("P", bound=Prepared)


class BucketedEngine(ABC, Generic[P]):
    """An engine that prepares an execution for each set of shapes.

    Args:
        model: Whose requests are run. Its weights must not change from now on.
    """

    name: EngineName
    # Lengths that a prompt may be padded to, besides the longest that the policy reads.
    lengths: ClassVar[tuple[int, ...]] = ()
    # Whether a batch runs as one; else its rows run one after the other, in one set of shapes.
    batches: ClassVar[bool] = True

    def __init__(self, model: FlowRequest) -> None:
        self.model: Any = model
        self._lock = threading.Lock()
        self._prepared: OrderedDict[Signature, tuple[StaticRequest, P]] = OrderedDict()

    @property
    def prepared_shapes(self) -> int:
        """For how many sets of shapes an execution is ready."""
        return len(self._prepared)

    def prepare(self, batch: Batch, noise_bta: Tensor) -> None:
        """Make ready for these shapes and every length of prompt that may come with them.

        A prompt that comes at its longest was padded by its processor, and always will be. The
        longest is made first, so that the memory that it needs serves the others.
        """
        own = batch["tokens"].shape[1]
        lengths = {self._padded(own)}
        if self.model.pads_prompts and own < self._longest:
            lengths |= {n for n in (*self.lengths, self._longest) if n <= self._longest}
        row, noise = (batch, noise_bta) if self.batches else (_row(batch, 0), noise_bta[:1])
        with self._lock, torch.inference_mode():
            for length in sorted(lengths, reverse=True):
                self._for(row, noise, length)

    def __call__(self, batch: Batch, noise_bta: Tensor) -> Tensor:
        """Run a request; see `Engine`."""
        if self.batches or len(noise_bta) == 1:
            return self._run(batch, noise_bta)
        rows = range(len(noise_bta))
        return torch.cat([self._run(_row(batch, row), noise_bta[row : row + 1]) for row in rows])

    def _run(self, batch: Batch, noise_bta: Tensor) -> Tensor:
        # Buffers are shared: requests of several threads take turns.
        with self._lock, torch.inference_mode():
            request, prepared = self._for(batch, noise_bta, self._padded(batch["tokens"].shape[1]))
            request.fill(batch, noise_bta)
            return prepared.run().clone()

    def _padded(self, tokens: int) -> int:
        if not self.model.pads_prompts:
            return tokens
        return prompt_length(tokens, lengths=self.lengths, longest=self._longest)

    @property
    def _longest(self) -> int:
        return int(self.model.config.tokenizer_max_length)

    def _for(self, batch: Batch, noise_bta: Tensor, prompt: int) -> tuple[StaticRequest, P]:
        key = signature(batch, noise_bta, prompt=prompt)
        if key not in self._prepared:
            request = StaticRequest.like(batch, noise_bta, prompt=prompt)
            request.fill(batch, noise_bta)
            self._prepared[key] = request, self._make(request)
            if len(self._prepared) > MAX_SHAPES:
                self._prepared.popitem(last=False)
        self._prepared.move_to_end(key)
        return self._prepared[key]

    @abstractmethod
    def _make(self, request: StaticRequest) -> P:
        """An execution over these buffers, which hold a valid request."""


def _row(batch: Batch, row: int) -> dict[str, Tensor]:
    return {name: batch[name][row : row + 1] for name in INPUTS if name in batch}
