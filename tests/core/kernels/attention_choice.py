"""Find the fastest attention of each shape on this GPU and keep the table beside the kernel.

    python -m tests.core.kernels.attention_choice

Every contender is first checked against SDPA; on CUDA the times are those of graph replays over
several sets of inputs. A contender that fails or is wrong on a shape is not chosen for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fastvla_core.kernels.prefix_attention import BlockMask, KeyValue, block_mask
from fastvla_core.kernels.prefix_attention.choice import CONFIGS, Backend, Shape, write
from fastvla_core.kernels.prefix_attention.reference import attend as sdpa
from tests.core.kernels.bench import median_us

SETS = 4
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
Inputs = tuple[Tensor, KeyValue, KeyValue | None, BlockMask]


def policy_shapes() -> list[Shape]:
    """Prefix and expert of pi0 (2 views, 48 tokens), pi0.5 (3 views, 200) and SmolVLA."""
    gemma = {"batch": 1, "heads": 8, "kv_heads": 1, "head_dim": 256, "dtype": "bfloat16"}
    smol = {"batch": 1, "heads": 15, "kv_heads": 5, "head_dim": 64, "dtype": "bfloat16"}
    sizes = [(gemma, 560, 51), (gemma, 968, 50), (smol, 177, 50)]
    return [
        Shape(**common, queries=queries, prefix_keys=keys, own_keys=queries)
        for common, prefix, chunk in sizes
        for queries, keys in ((prefix, 0), (chunk, prefix))
    ]


def inputs(shape: Shape, device: torch.device) -> Inputs:
    dtype = getattr(torch, shape.dtype)

    def noise(heads: int, tokens: int) -> Tensor:
        made = torch.randn(shape.batch, heads, tokens, shape.head_dim, device=device)
        return made.to(dtype)

    def memory(tokens: int) -> KeyValue:
        return KeyValue(noise(shape.kv_heads, tokens), noise(shape.kv_heads, tokens))

    keys = shape.prefix_keys + shape.own_keys
    real = torch.ones(shape.batch, keys, dtype=torch.bool, device=device)
    blocks = torch.zeros(keys, dtype=torch.long, device=device)
    mask = block_mask(blocks[: shape.queries], blocks, real)
    prefix = memory(shape.prefix_keys) if shape.prefix_keys else None
    return noise(shape.heads, shape.queries), memory(shape.own_keys), prefix, mask


def contenders() -> dict[Backend, Callable[[Inputs], Tensor]]:
    from fastvla_core.kernels.prefix_attention import flex, triton

    def whole(given: Inputs) -> KeyValue:
        _, own, prefix, _ = given
        return own if prefix is None else prefix.then(own)

    return {
        "sdpa": lambda given: sdpa(given[0], whole(given), given[3].dense),
        "triton": lambda given: triton.attend(given[0], given[1], given[3], given[2])[0],
        "flex": lambda given: flex.attend(given[0], whole(given), given[3]),
    }


def replayed(call: Callable[[], Tensor], device: torch.device) -> Callable[[], object]:
    """The call as a CUDA graph; itself on a CPU."""
    if device.type != "cuda":
        return call
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def fastest(
    shape: Shape, device: torch.device, names: Sequence[Backend]
) -> tuple[Backend, dict[str, float]]:
    """The fastest contender, and the times of all that gave the right result [us]."""
    sets = [inputs(shape, device) for _ in range(SETS)]
    known = contenders()
    exact = known["sdpa"](sets[0])
    times: dict[Backend, float] = {}
    for name in names:
        run = known[name]
        if (run(sets[0]) - exact).abs().max() > TOLERANCE[shape.dtype]:
            print(f"{name} is wrong on {shape}")
            continue
        calls = [replayed(lambda given=given, run=run: run(given), device) for given in sets]
        times[name] = median_us(lambda index, calls=calls: calls[index % SETS](), device)
    return min(times, key=lambda name: times[name]), dict(times)


def tabulate(
    shapes: Sequence[Shape], device: torch.device, *, names: Sequence[Backend], folder: Path
) -> Path:
    """Measure the shapes and write the table."""
    table: dict[Shape, Backend] = {}
    with torch.inference_mode():
        for shape in shapes:
            table[shape], times = fastest(shape, device, names)
            print(shape, {name: round(value, 1) for name, value in times.items()})
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return write(table, gpu, folder=folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=CONFIGS)
    args = parser.parse_args()
    device, names = torch.device("cuda"), ("sdpa", "triton", "flex")
    print(tabulate(policy_shapes(), device, names=names, folder=args.folder))


if __name__ == "__main__":
    main()
