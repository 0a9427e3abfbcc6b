"""Linear layers with quantised, frozen weights, saved under the keys that bitsandbytes uses.

The weight stays packed between calls. Policies that call a layer several times per request (flow
steps) wrap the request in `dequantized(module)`: each layer then unpacks once, at its first call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastvla_core.errors import QuantError
from fastvla_core.kernels.nf4_linear.reference import compute_dtype, dense_linear


class QuantizedLinear(nn.Module, ABC):
    """Base of the quantised layers: y = x @ W^T + b, gradients to x and b only.

    Attributes:
        state_keys: Names under which the weight is stored, without prefix.
        in_features, out_features: K and N.
        bias: Parameter [N] or None, in the type of the layer it came from.
    """

    state_keys: ClassVar[frozenset[str]]
    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, *, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.register_parameter("bias", bias)
        self._held: dict[torch.dtype, Tensor] | None = None

    @classmethod
    @abstractmethod
    def blank(cls, linear: nn.Linear) -> QuantizedLinear:
        """Return a layer of the same shape for a stored weight to be loaded into."""

    @abstractmethod
    def dense(self, dtype: torch.dtype) -> Tensor:
        """Return the unpacked weight [N, K]."""

    @abstractmethod
    def multiply(self, x: Tensor) -> Tensor:
        """Multiply by the packed weight; `x` has its final type."""

    @abstractmethod
    def weight_state(self) -> dict[str, Tensor]:
        """Return the stored tensors of the weight, keyed as in a checkpoint, without prefix."""

    @abstractmethod
    def load_weight_state(
        self, state: Mapping[str, Tensor], *, device: torch.device | None
    ) -> None:
        """Take the weight from stored tensors; `device` None keeps theirs. Raises QuantError."""

    @property
    def qweight(self) -> Tensor:
        """The packed weight, under the name where peft looks for a layer's device."""
        return next(self.buffers())

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., K] to [..., N] in the type of `x` (under autocast, in autocast's type)."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        # A compiled graph unpacks in its own fused loop and cannot keep tensors between calls.
        if torch.compiler.is_compiling():
            return self.multiply(x)
        # Read once: another thread may leave `dequantized` at any moment.
        held = self._held
        if held is None:
            return self.multiply(x)
        dtype = compute_dtype(x)
        if dtype not in held:
            # It may serve a call with gradients next, so it must not be an inference tensor.
            with torch.inference_mode(False), torch.no_grad():
                held[dtype] = self.dense(dtype)
        return dense_linear(x, held[dtype], self.bias)

    @property
    def holds_dense(self) -> bool:
        """Whether it is inside `dequantized`: what is unpacked already, no kernel unpacks again."""
        return self._held is not None

    def extra_repr(self) -> str:
        """Describe the layer as nn.Linear does."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLinear:
        # `.half()` and the like must not touch the scales: they are float32 by format.
        scales = {n: b for n, b in self._buffers.items() if b is not None and b.is_floating_point()}
        super()._apply(fn, recurse)
        for name, scale in scales.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != scale.dtype:
                self._buffers[name] = scale.to(moved.device)
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        for key, value in self.weight_state().items():
            destination[prefix + key] = value
        if self.bias is not None:
            destination[prefix + "bias"] = self.bias if keep_vars else self.bias.detach()

    def _load_from_state_dict(  # noqa: PLR0917  (torch calls it by position)
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        self._load_bias(
            own.pop("bias", None), prefix, local_metadata, missing_keys, unexpected_keys
        )
        unexpected_keys += [prefix + key for key in own if key not in self.state_keys]
        if "weight" not in own:
            missing_keys.append(prefix + "weight")
            return
        here = next(buffer.device for buffer in self.buffers())
        keeps_device = local_metadata.get("assign_to_params_buffers", False) or here.type == "meta"
        try:
            self.load_weight_state(own, device=None if keeps_device else here)
        except QuantError as error:
            error_msgs.append(f"{prefix}weight: {error}")

    def _load_bias(
        self,
        stored: Tensor | None,
        prefix: str,
        local_metadata: dict[str, Any],
        missing_keys: list[str],
        unexpected_keys: list[str],
    ) -> None:
        if self.bias is None or stored is None:
            if self.bias is not None:
                missing_keys.append(prefix + "bias")
            elif stored is not None:
                unexpected_keys.append(prefix + "bias")
            return
        if local_metadata.get("assign_to_params_buffers", False) or self.bias.is_meta:
            self.bias = nn.Parameter(stored, requires_grad=self.bias.requires_grad)
            return
        with torch.no_grad():
            self.bias.copy_(stored)


@contextmanager
def dequantized(module: nn.Module) -> Iterator[None]:
    """Unpack each quantised layer below `module` at most once until the block ends.

    Costs the unpacked size of the layers that are called, for the duration of the block; afterwards
    nothing is kept. On the CPU the results are bit-equal with and without. Blocks may nest; the
    outermost one owns the unpacked weights. A thread that is still inside when the owner leaves
    unpacks per call again, and compiled code always does.
    """
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, QuantizedLinear) and layer._held is None  # pyright: ignore[reportPrivateUsage]
    ]
    for layer in layers:
        layer._held = {}  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        for layer in layers:
            layer._held = None  # pyright: ignore[reportPrivateUsage]
