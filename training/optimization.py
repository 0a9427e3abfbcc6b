"""The optimiser, and training in less memory: 8-bit states, activations recomputed or offloaded."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from fastvla_core.errors import DatasetError, DependencyError
from training.recipe import Activations, Optimizer, Precision, TrainConfig

# How the layers of Transformers' decoders are given the cache of all of them.
_CACHE = "past_key_values"


def make_optimizer(
    name: Optimizer,
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.Optimizer:
    """AdamW, with its two states in float32 or in 8 bits (blockwise, 2 bytes per weight, not 8).

    Raises:
        DependencyError: bitsandbytes is not installed.
    Source: 8-bit optimisers, arXiv:2110.02861.
    """
    if name == "adamw":
        return torch.optim.AdamW(
            parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True
        )
    try:
        from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError as error:
        raise DependencyError(
            "`optimizer: adamw_8bit` needs bitsandbytes, which cannot be imported",
            mend="pip install 'fastvla[lora]', or use `optimizer: adamw`",
        ) from error
    return AdamW8bit(parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay)


def learning_rate(step: int, *, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate` at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    low, high = config.final_learning_rate, config.learning_rate
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * share))


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type that products are done in there; None for that of the weights."""
    if precision == "fp16":
        return torch.float16
    return torch.bfloat16 if precision == "bf16" and multiplies_bf16(device) else None


@contextlib.contextmanager
def passes_in(
    precision: Precision, *, here: torch.device, device: torch.device, keep_casts: bool = True
) -> Iterator[None]:
    """What forward and backward passes of a training step run in.

    Args:
        here: Where the weights are now.
        device: Where they will be trained.
        keep_casts: Cast a weight to 16 bits once for all its uses.
    """
    dtype = autocast_dtype(precision, device)
    # What will be in parts on GPUs is measured on the host, where bf16 is the usual half.
    if dtype is not None and here.type != device.type:
        dtype = torch.bfloat16
    cast = torch.autocast(here.type, dtype, enabled=dtype is not None, cache_enabled=keep_casts)
    # On a CPU the backward pass of fused attention is three times slower than plain matmuls.
    on_cpu = device.type == "cpu"
    kernel = sdpa_kernel(SDPBackend.MATH) if on_cpu else contextlib.nullcontext()
    with cast, kernel:
        yield


def require_precision(precision: Precision, device: torch.device) -> None:
    """See that a device has what a recipe asks for.

    Raises:
        DatasetError: fp16 on a CPU, which does such products one by one.
    """
    if precision == "fp16" and device.type == "cpu":
        raise DatasetError(
            "training.precision is fp16, and a CPU does such products in software",
            mend="set `precision: fp32` (or bf16, which falls back to it), or train on a GPU",
        )


def multiplies_bf16(device: torch.device) -> bool:
    """Whether bf16 products are fast there; a CPU without AVX-512 takes many times as long.

    A training step of the nano policy took 5 s on two such cores.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


def recompute_activations(model: nn.Module) -> int:
    """Let every layer of the model's layer stacks forget its activations and compute them again.

    Layer stacks are the `nn.ModuleList`s that hold transformer layers, ours and those of a
    Transformers backbone, which evaluates its layers while it is trained: without dropout. Costs
    about a third of the time and saves most of the activations' memory; gradients are the same.

    Returns:
        How many layers do so.
    Source: arXiv:1604.06174.
    """
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    layers = {id(layer): layer for stack in stacks for layer in stack}
    for layer in layers.values():
        _recompute(layer)
    return len(layers)


def _recompute(layer: nn.Module) -> None:
    forward = layer.forward

    def recomputed(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        cache = kwargs.pop(_CACHE, None)
        if cache is None:
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        output, place, written = checkpoint(
            functools.partial(_with_own_cache, forward, type(cache)),
            *args,
            use_reentrant=False,
            **kwargs,
        )
        cache.update(*written, place)
        return output

    layer.forward = recomputed  # type: ignore[method-assign]


def _with_own_cache(
    forward: Callable[..., Any], kind: type[Any], *args: Any, **kwargs: Any
) -> tuple[Any, int, tuple[Tensor, Tensor]]:
    """A layer's output, and the keys and values that it would have left in a cache at a place.

    Computed again, a layer would write into a cache of all layers a second time.
    """
    cache = kind()
    output = forward(*args, **kwargs, **{_CACHE: cache})
    layer = cache.layers[-1]
    return output, len(cache.layers) - 1, (layer.keys, layer.values)


@contextlib.contextmanager
def saved_activations(where: Activations, *, device: torch.device) -> Iterator[None]:
    """Where the backward pass finds what the forward pass leaves it: "offload" is the host."""
    if where != "offload":
        yield
        return
    with torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda"):
        yield
