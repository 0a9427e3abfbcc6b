"""Find the fastest tiles of each product on this GPU and keep them in the repository.

    python -m tests.core.kernels.tile_choice

Every candidate is first checked against the operator's reference; times are those of CUDA graph
replays over several sets of inputs, because what wins when launched one by one need not win there.
A candidate that fails to compile, to launch or to be right is not chosen. The table goes to
`fastvla_core/kernels/tiles_<gpu>.json`, where the kernels find it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastvla_core.errors import DependencyError
from fastvla_core.kernels.tiles import CONFIGS, Product, Tiles, product_tiles, write_tiles
from tests.core.kernels.attention_choice import SETS, TOLERANCE, replayed
from tests.core.kernels.bench import median_us

# Gemma-2B, pi0's expert and SmolVLA: rows of prefix and chunk, width, hidden width, heads.
_GEMMA, _EXPERT, _SMOL, _SMOL_EXPERT = (2048, 16384), (1024, 4096), (960, 2560), (720, 2048)
_ROWS = {_GEMMA: (560, 968), _EXPERT: (50, 51), _SMOL: (177,), _SMOL_EXPERT: (50,)}
_HEADS = {_GEMMA: (8, 1, 256), _EXPERT: (8, 1, 256), _SMOL: (15, 5, 64), _SMOL_EXPERT: (15, 5, 64)}

Call = Callable[[Tiles], Tensor]


@dataclass(frozen=True, slots=True)
class Contest:
    """One product on several sets of inputs.

    Attributes:
        calls: What runs the kernel with some tiles, one for each set.
        exact: What the reference gives for the first set.
    """

    product: Product
    calls: tuple[Call, ...]
    exact: Tensor


def candidates(dtype: str) -> list[Tiles]:
    """The grid that is searched; what does not fit a GPU's shared memory fails to launch."""
    sizes = itertools.product((16, 32, 64, 128), (32, 64, 128), (32, 64, 128), (4, 8), (2, 3, 4))
    if dtype == "float32":
        sizes = itertools.product((16, 32, 64), (32, 64), (32,), (4,), (1, 2))
    return [Tiles(m=m, n=n, k=k, warps=w, stages=s) for m, n, k, w, s in sizes]


def fastest(
    contest: Contest,
    tiles: Sequence[Tiles],
    *,
    time_us: Callable[[Sequence[Callable[[], Tensor]]], float],
) -> tuple[Tiles, Mapping[Tiles, float]]:
    """The fastest tiles that give the right result, and the times of all those [us].

    Args:
        time_us: Times calls on several sets of inputs.
    """
    usual = product_tiles(contest.product.rows, getattr(torch, contest.product.dtype))
    limit = TOLERANCE[contest.product.dtype] * float(contest.exact.abs().max())
    times: dict[Tiles, float] = {}
    for candidate in dict.fromkeys([usual, *tiles]):
        try:
            wrong = float((contest.calls[0](candidate) - contest.exact).abs().max()) > limit
            calls = [lambda call=call, own=candidate: call(own) for call in contest.calls]
            if not wrong:
                times[candidate] = time_us(calls)
        # Triton raises its own errors for what a GPU cannot hold: the search goes on without it.
        except Exception as error:
            print(f"  {candidate}: {str(error).splitlines()[0][:80]}")
    return min(times, key=lambda own: times[own], default=usual), times


def gated_mlp_contest(rows: int, width: int, hidden: int, *, device: torch.device) -> Contest:
    """The gated MLP's two products."""
    from fastvla_core.kernels.gated_mlp import reference, triton

    def noise(*shape: int) -> Tensor:
        return (torch.randn(shape, device=device) / shape[-1] ** 0.5).bfloat16()

    sets = [(noise(rows, width), noise(hidden, width), noise(hidden, width)) for _ in range(SETS)]
    calls = tuple(
        lambda tiles, given=given: triton.gated_mlp(*given, activation="gelu_tanh", tiles=tiles)
        for given in sets
    )
    exact = reference.gated_mlp(*sets[0], activation="gelu_tanh")
    return Contest(triton.product_of(rows, sets[0][1]), calls, exact)


def qkv_contest(
    rows: int, width: int, heads: tuple[int, int, int], *, device: torch.device
) -> Contest:
    """Queries, keys and values without rotation, which costs the same whatever the tiles."""
    from fastvla_core.kernels.qkv_rope import Projection, reference, triton

    queries, groups, dim = heads

    def noise(*shape: int) -> Tensor:
        return (torch.randn(shape, device=device) / shape[-1] ** 0.5).bfloat16()

    def drawn() -> tuple[Tensor, Projection, Projection, Projection]:
        parts = (Projection(noise(n * dim, width)) for n in (queries, groups, groups))
        return (noise(1, rows, width), *parts)

    sets = [drawn() for _ in range(SETS)]
    calls = tuple(
        lambda tiles, given=given: _joined(
            triton.qkv_rope(*given, head_dim=dim, rope=None, tiles=tiles)
        )
        for given in sets
    )
    exact = _joined(reference.qkv_rope(*sets[0], head_dim=dim, rope=None))
    product = triton.product_of(rows, (queries + 2 * groups) * dim, sets[0][2])
    return Contest(product, calls, exact)


def _joined(parts: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([part.flatten() for part in parts if part is not None])


def policy_contests(device: torch.device) -> list[Contest]:
    """The products of pi0, pi0.5 and SmolVLA at batch 1."""
    return [
        contest
        for size, all_rows in _ROWS.items()
        for rows in all_rows
        for contest in (
            gated_mlp_contest(rows, *size, device=device),
            qkv_contest(rows, size[0], _HEADS[size], device=device),
        )
    ]


def require_gpu() -> torch.device:
    """The GPU that is searched for.

    Raises:
        DependencyError: there is none; tiles found elsewhere would be of no use.
    """
    if not torch.cuda.is_available():
        raise DependencyError(
            "tiles are measured on a GPU, and PyTorch sees none",
            mend="run this on the GPU that the tiles are for, with a CUDA build of PyTorch",
        )
    return torch.device("cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=CONFIGS)
    args = parser.parse_args()
    device = require_gpu()

    def time_us(calls: Sequence[Callable[[], Tensor]]) -> float:
        graphs = [replayed(call, device) for call in calls]
        return median_us(lambda index: graphs[index % len(graphs)](), device)

    table: dict[Product, Tiles] = {}
    with torch.inference_mode():
        for contest in policy_contests(device):
            best, times = fastest(contest, candidates(contest.product.dtype), time_us=time_us)
            table[contest.product] = best
            print(contest.product, best, f"{times[best]:.1f} us" if times else "nothing ran")
    print(write_tiles(table, torch.cuda.get_device_name(device), folder=args.folder))


if __name__ == "__main__":
    main()
