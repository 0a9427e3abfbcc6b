"""Swap the linear layers of a model for quantised ones, and count bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

from torch import nn

from fastvla_core.errors import QuantError

from .base import QuantizedLinear
from .linear import Int8Linear, Nf4Linear
from .nf4 import STATE_KEY

Mode = Literal["nf4", "int8"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)

_MODES: tuple[Mode, ...] = ("nf4", "int8")
# Their fused paths read the weights of their children instead of calling them.
_READS_CHILD_WEIGHTS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def quantize_module(
    module: ModuleT, mode: Mode, *, skip: Iterable[str] = (), nested: bool = False
) -> ModuleT:
    """Replace the linear layers below `module` in place by quantised ones.

    Left alone: subclasses of nn.Linear, layers whose weight another module shares (tied heads), and
    children of torch modules that read weights directly. Everything else but nn.Linear (embeddings,
    norms, convolutions) is never touched.

    Args:
        module: Model with its weights loaded.
        mode: "nf4", or "int8" with one scale per output row.
        skip: Shell patterns on dotted names, such as "head" or "*.gate": what they match stays.
        nested: NF4 only: store the block scales in 8 bits too; see `nf4.quantize`.
    Returns:
        `module`.
    Raises:
        QuantError: No layer is left to quantise, a weight is not finite, or `mode` is unknown.
    """
    if mode not in _MODES:
        raise QuantError(f"unknown quantisation {mode!r}", mend=f"use one of {', '.join(_MODES)}")
    chosen = quantizable_layers(module, skip=skip)
    if not chosen:
        raise QuantError("no linear layer to quantise", mend="check the skip patterns")
    for name, linear in chosen.items():
        module.set_submodule(name, _quantized(name, linear, mode, nested))
    return module


def quantizable_layers(module: nn.Module, *, skip: Iterable[str] = ()) -> dict[str, nn.Linear]:
    """Return the layers that `quantize_module` would replace, by dotted name."""
    patterns = tuple(skip)
    return {
        name: linear
        for name, linear in _plain_linears(module).items()
        if not any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def prepare_for_state(module: ModuleT, keys: Iterable[str]) -> ModuleT:
    """Replace by blank quantised layers those that a state dict holds quantised, so that it loads.

    Serves what `quantize_module` and bitsandbytes save. Layers stored at full precision stay.

    Args:
        module: Model at full precision, on any device, "meta" included.
        keys: Names in the state dict that will be loaded into `module`.
    Raises:
        QuantError: A quantised weight belongs to no linear layer of `module`.
    """
    stored = frozenset(keys)
    layers = dict(module.named_modules())
    for key in sorted(stored):
        name, kind = _split_marker(key)
        if kind is None:
            continue
        linear = layers.get(name)
        if not isinstance(linear, nn.Linear):
            raise QuantError(
                f"{key!r} is quantised, but {name!r} is no linear layer of this model",
                mend="the checkpoint belongs to another model configuration",
            )
        module.set_submodule(name, kind.blank(linear))
    return module


def quantized_layers(module: nn.Module) -> dict[str, QuantizedLinear]:
    """Return the quantised layers below `module` by dotted name."""
    return {n: m for n, m in module.named_modules() if isinstance(m, QuantizedLinear)}


def memory_bytes(module: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, shared memory counted once."""
    seen: dict[int, int] = {}
    for tensor in _tensors(module):
        # Unlike an address, it also tells tensors on "meta" and fake ones apart.
        key = tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
        seen[key] = max(seen.get(key, 0), tensor.numel() * tensor.element_size())
    return sum(seen.values())


def _tensors(module: nn.Module) -> Iterator[nn.Parameter]:
    yield from module.parameters()
    yield from module.buffers()  # pyright: ignore[reportReturnType]


def _plain_linears(module: nn.Module) -> dict[str, nn.Linear]:
    owners = Counter(
        id(parameter) for child in module.modules() for parameter in child.parameters(recurse=False)
    )
    closed = {
        id(child)
        for parent in module.modules()
        if isinstance(parent, _READS_CHILD_WEIGHTS)
        for child in parent.modules()
    }
    return {
        name: child
        for name, child in module.named_modules()
        if name
        and type(child) is nn.Linear
        and id(child) not in closed
        and owners[id(child.weight)] == 1
    }


def _quantized(name: str, linear: nn.Linear, mode: Mode, nested: bool) -> QuantizedLinear:
    try:
        if mode == "nf4":
            return Nf4Linear.from_linear(linear, nested=nested)
        return Int8Linear.from_linear(linear)
    except QuantError as error:
        raise QuantError(f"layer {name!r}: {error.message}", mend=error.mend) from error


def _split_marker(key: str) -> tuple[str, type[QuantizedLinear] | None]:
    for marker, kind in ((f".weight.{STATE_KEY}", Nf4Linear), (".SCB", Int8Linear)):
        if key.endswith(marker):
            return key.removesuffix(marker), kind
    return key, None
