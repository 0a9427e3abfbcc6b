"""What NF4 costs the nano policy's actions, by the layers that it leaves at full precision.

    python -m training.bench.nf4_layers --draws 10

One rounding is one draw of an error whose worst case is wanted. So the table has the rounding as
it is stored, and others of the same quality: blocks of 64 taken over columns in another order.
Shapes: n inputs, t action steps, a action dimensions.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fastvla_core.quant import nf4, quantizable_layers
from training.bench.contest.check import Agreement, agreement
from training.bench.contest.ours import load
from training.bench.contest.workloads import prepare

# Beyond `full_precision`; None is what `skipped_layers` leaves alone.
KEPT: dict[str, tuple[str, ...] | None] = {
    "nothing": (),
    "keys, values": ("*.self_attn.[kv]_proj",),
    "queries, keys": ("*.self_attn.[qk]_proj",),
    "queries, keys, values of prefix and expert": None,
    "all of attention": ("*.self_attn.*",),
    "feed-forward layers": ("*.mlp.*",),
    "prefix and text": ("prefix.*",),
    "expert": ("expert.*",),
}
_CHUNK = 25


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--draws", type=int, default=10, help="other roundings (default: 10)")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as folder, torch.inference_mode():
        for line in table(Path(folder), inputs=options.inputs, draws=options.draws):
            print(line, flush=True)


def table(folder: Path, *, inputs: int, draws: int) -> Iterator[str]:
    """The lines of a Markdown table."""
    workload = prepare("nano", folder, inputs=inputs, device="cpu")
    model: Any = load(str(workload.checkpoint), compute=torch.float32, device="cpu")
    batch = load_file(workload.inputs)
    exact = _actions(model, batch)
    yield "| kept in full | weights | as stored | its motion | others, mean | others, worst |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, patterns in KEPT.items():
        kept = model.nf4_full_precision if patterns is None else patterns
        found = [
            agreement(
                _rounded_actions(model, batch, kept, draw), exact, batch["noise"], workload.motion
            )
            for draw in range(draws + 1)
        ]
        yield _line(name, _kept(model, kept), found)


def _rounded_actions(
    model: Any, batch: dict[str, Tensor], kept: Sequence[str], draw: int
) -> Tensor:
    """Actions [n, t, a] with all but the kept layers rounded; the weights are put back."""
    layers = quantizable_layers(model, skip=(*model.full_precision, *kept))
    exact = {name: layer.weight.clone() for name, layer in layers.items()}
    generator = torch.Generator().manual_seed(draw)
    for layer in layers.values():
        layer.weight.copy_(_rounded(layer.weight, generator if draw else None))
    try:
        return _actions(model, batch)
    finally:
        for name, layer in layers.items():
            layer.weight.copy_(exact[name])


def _rounded(weight_nk: Tensor, generator: torch.Generator | None) -> Tensor:
    columns = weight_nk.shape[1]
    order = torch.arange(columns)
    if generator is not None:
        order = torch.randperm(columns, generator=generator)
    packed = nf4.quantize(weight_nk[:, order])
    return nf4.dequantize(packed, weight_nk.dtype)[:, order.argsort()]


def _actions(model: Any, batch: dict[str, Tensor]) -> Tensor:
    count = len(batch["noise"])
    parts = ({k: t[i : i + _CHUNK] for k, t in batch.items()} for i in range(0, count, _CHUNK))
    return torch.cat([model(part, part["noise"]) for part in parts])


def _kept(model: Any, patterns: Sequence[str]) -> int:
    packed = quantizable_layers(model, skip=(*model.full_precision, *patterns))
    every = quantizable_layers(model, skip=model.full_precision)
    return sum(every[name].weight.numel() for name in every.keys() - packed.keys())


def _line(name: str, kept: int, found: Sequence[Agreement]) -> str:
    stored, *others = found
    worst = [other.worst_cosine for other in others]
    drawn = f"{statistics.mean(worst):.4f} | {min(worst):.4f}" if worst else " | "
    return (
        f"| {name} | {kept:,} | {stored.worst_cosine:.4f} | {stored.worst_motion_cosine:.4f} "
        f"| {drawn} |"
    )


if __name__ == "__main__":
    main()
