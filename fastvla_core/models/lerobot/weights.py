"""A network's weights from a checkpoint's names and back: nothing missing, nothing left over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import write_tensors
from fastvla_core.models.lerobot.key_table import KeyTable
from fastvla_core.models.lerobot.stored import SINGLE, is_floating
from fastvla_core.quant import prepare_for_state, quantized_layers

_MEND = "use the config.json and the sizes that belong to these weights"


@dataclass(frozen=True, slots=True)
class Unused:
    """What a checkpoint holds beyond the network, kept so that saving gives it back.

    Attributes:
        tensors: By the checkpoint's names.
        twins: The checkpoint's names of tied weights, by ours: each is written under all of them.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    twins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def take_weights(
    model: nn.Module,
    stored: Mapping[str, Tensor],
    *,
    table: KeyTable,
    dtype: torch.dtype,
    source: Path,
) -> Unused:
    """Make a checkpoint's tensors the network's own; returns those it does not need.

    Args:
        model: Built on "meta"; layers that are stored quantised are replaced.
        dtype: Type of all weights at full precision.
        source: For messages.
    Raises:
        CheckpointError: a weight is missing, left over, of another shape, or tied weights differ.
        QuantError: quantised weights are damaged.
    """
    own, names, unused, strangers = _sorted_out(stored, table, source)
    prepare_for_state(model, own)
    problems = [f"'{name}' is not part of the model" for name in strangers]
    problems += _misfits(model, own, names, table)
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise CheckpointError(f"{source}: {len(problems)} weights do not fit: {shown}", mend=_MEND)
    plain = {name for name, _ in model.named_parameters()} | {n for n, _ in model.named_buffers()}
    own = {name: _own_copy(t, dtype if name in plain else t.dtype) for name, t in own.items()}
    model.load_state_dict(own, assign=True)
    twins = {own: tuple(map(table.normalized, n)) for own, n in names.items() if len(n) > 1}
    return Unused(unused, twins)


def stored_weights(model: nn.Module, unused: Unused, *, table: KeyTable) -> dict[str, Tensor]:
    """The network's weights, and what it does not need, under a checkpoint's names."""
    result: dict[str, Tensor] = dict(unused.tensors)
    for name, tensor in model.state_dict().items():
        twins = unused.twins.get(name, ())
        result[table.stored(name)] = tensor
        # A file cannot hold one memory under two names.
        result |= {twin: tensor.clone() for twin in twins if twin != table.stored(name)}
    return result


def save_weights(folder: Path, model: nn.Module, unused: Unused, *, table: KeyTable) -> None:
    """Write FOLDER/model.safetensors."""
    write_tensors(folder / SINGLE, stored_weights(model, unused, table=table))


def _sorted_out(
    stored: Mapping[str, Tensor], table: KeyTable, source: Path
) -> tuple[dict[str, Tensor], dict[str, list[str]], dict[str, Tensor], list[str]]:
    """Weights by our names, all stored names of each, what the network does not need, the rest."""
    own: dict[str, Tensor] = {}
    names: dict[str, list[str]] = {}
    unused: dict[str, Tensor] = {}
    strangers: list[str] = []
    for stored_name, tensor in stored.items():
        name = table.normalized(stored_name)
        if table.is_dropped(name):
            continue
        renamed = table.own(name)
        if renamed is None and table.is_unused(name):
            unused[name] = tensor
        elif renamed is None:
            strangers.append(stored_name)
        else:
            names.setdefault(renamed, []).append(stored_name)
            if not torch.equal(own.setdefault(renamed, tensor), tensor):
                both = " and ".join(f"'{n}'" for n in names[renamed])
                raise CheckpointError(f"{source}: {both} are tied but differ", mend=_MEND)
    return own, names, unused, strangers


def _own_copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # The file's own memory is not aligned, and matrix products round differently there; it also
    # must not change below a policy when the file does.
    return tensor.to(dtype, copy=True) if is_floating(tensor) else tensor.clone()


def _misfits(
    model: nn.Module,
    own: Mapping[str, Tensor],
    names: Mapping[str, list[str]],
    table: KeyTable,
) -> Iterator[str]:
    expected = model.state_dict()
    packed = tuple(f"{name}." for name in quantized_layers(model))
    for name, tensor in expected.items():
        if name.startswith(packed):
            continue
        if name not in own:
            yield f"'{table.stored(name)}' is missing"
        elif own[name].shape != tensor.shape:
            found, wanted = tuple(own[name].shape), tuple(tensor.shape)
            yield f"'{names[name][0]}' is {found}, expected {wanted}"
    for name in own.keys() - expected.keys():
        if not name.startswith(packed):
            yield f"'{names[name][0]}' is not part of the model"
