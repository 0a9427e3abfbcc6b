"""Networks whose weights will come from a file: built without memory and without random numbers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

NetworkT = TypeVar("NetworkT", bound=nn.Module)

# Each gives back the tensor that it would fill.
_DRAWS: frozenset[Callable[..., Any]] = frozenset(
    {torch.nn.init.normal_, torch.nn.init.trunc_normal_, torch.Tensor.normal_}
)


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """Put new tensors on "meta" and leave out the drawing of normal numbers.

    "meta" has no kernel for that: torch falls back to a Python reference, whose import of
    torch._dynamo takes longer than all else in loading a small policy. So does arithmetic:
    modules draw their weights with `torch.nn.init`, not with `torch.randn(...) * std`.
    """
    with torch.device("meta"), _NoDraws():
        yield


def weightless_copy(network: NetworkT) -> NetworkT:
    """A copy whose tensors are on "meta"; `load_state_dict(state, assign=True)` fills it."""
    tensors = [*network.parameters(), *network.buffers()]
    made: dict[int, Any] = {id(tensor): tensor.detach().to("meta") for tensor in tensors}
    for parameter in network.parameters():
        blank = made[id(parameter)]
        made[id(parameter)] = nn.Parameter(blank, requires_grad=parameter.requires_grad)
    return copy.deepcopy(network, made)


class _NoDraws(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
