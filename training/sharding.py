"""Every process keeps its part of the weights: PyTorch's fully sharded data parallel (FSDP2).

The layers of a layer stack are gathered one by one when they are called, let go of, and gathered
again in the backward pass, which sends each process its part of their gradient. What is in no
stack (embeddings, heads) stays gathered for a step. Gradients, optimiser states and averages exist
in parts only; packed weights are parts too, in their packed form.

Source: arXiv:2304.11277.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

from fastvla_core.errors import DependencyError
from fastvla_core.quant import quantized_layers
from training.processes import Processes

# It sees the outputs of our layers, which are dataclasses, and sends zeros for weights that one
# process alone did not use. No older one was tried.
_TORCH = (2, 13)


def require_sharding() -> None:
    """See that the installed PyTorch can do it.

    Raises:
        DependencyError: it cannot.
    """
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _TORCH:
        raise DependencyError(
            f"training.parallel: fsdp needs PyTorch 2.13, this is {torch.__version__}",
            mend="install a newer one, or use `parallel: ddp`",
        )


def layers_of(network: nn.Module) -> list[nn.Module]:
    """What is gathered together: the layers of layer stacks, the outermost where they nest."""
    found: list[nn.Module] = []
    inside: set[int] = set()
    for stack in network.modules():
        if not isinstance(stack, nn.ModuleList) or len(stack) < 2:
            continue
        for layer in stack:
            # Nobody calls a container; its own members follow.
            held = isinstance(layer, (nn.ModuleList, nn.ModuleDict))
            if not held and id(layer) not in inside and any(True for _ in layer.parameters()):
                found.append(layer)
                inside.update(id(module) for module in layer.modules())
    return found


def shard(loss: nn.Module, *, device: torch.device) -> None:
    """Leave each process its part of a loss's weights, on its device.

    Raises:
        DependencyError: PyTorch is too old.
    """
    require_sharding()
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    _hold_packed_as_parameters(loss)
    for layer in layers_of(loss):
        _show_cached(layer)
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        layer.register_forward_hook(_hide_cached)
        for name in getattr(layer, "called_by_name", ()):
            register_fsdp_forward_method(layer, name)
    whole_loss: Any = fully_shard(loss, mesh=mesh)
    whole_loss.set_reduce_scatter_unused_params(True)


def whole(tensor: Tensor) -> Tensor:
    """The tensor, or all of it where it is a part: every process has to ask for it then."""
    part: Any = tensor
    return part.full_tensor() if is_part(tensor) else tensor


def as_kept(value: Tensor, kept: Tensor) -> Tensor:
    """A whole tensor as this process keeps it: as the part that `kept` is, or whole as it is."""
    if not is_part(kept):
        return value
    from torch.distributed.tensor import distribute_tensor

    like: Any = kept
    return distribute_tensor(value.to(kept.device), like.device_mesh, like.placements)


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor; shares its memory."""
    part: Any = tensor
    return part.to_local() if is_part(tensor) else tensor


def is_part(tensor: Tensor) -> bool:
    """Whether other processes hold the rest of it."""
    # Importing DTensor to ask takes a second of every start.
    return hasattr(tensor, "full_tensor")


def copies_of(tensors: Mapping[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """Whole copies on the host of the first process; the others only give their parts."""
    copies: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        # Beside the GPU: there may be no room for another one on it.
        if processes.first:
            copies[name] = value.detach().to("cpu", copy=True).contiguous()
    return copies


@dataclasses.dataclass(frozen=True, slots=True)
class _Shown:
    """An output, and what a layer of Transformers left in a cache that others differentiate."""

    output: Any
    cached: tuple[Tensor, ...]


def _show_cached(layer: nn.Module) -> None:
    """Let the sharding see the keys and values that a layer of Transformers leaves in a cache.

    Heads read them there; a gradient that comes back through them alone has to gather the layer.
    """

    def shown(layer: Any, _: Any, given: dict[str, Any], output: Any) -> _Shown | None:
        cache = given.get("past_key_values")
        if cache is None:
            return None
        own = cache.layers[layer.self_attn.layer_idx]
        return _Shown(output, (own.keys, own.values))

    layer.register_forward_hook(shown, with_kwargs=True)


def _hide_cached(_: nn.Module, __: Any, output: Any) -> Any:
    return output.output if isinstance(output, _Shown) else output


def _hold_packed_as_parameters(network: nn.Module) -> None:
    """Packed weights are buffers, and only parameters are shared out."""
    for layer in quantized_layers(network).values():
        for name, value in list(layer.named_buffers(recurse=False)):
            if value.ndim:
                delattr(layer, name)
                layer.register_parameter(name, nn.Parameter(value, requires_grad=False))
