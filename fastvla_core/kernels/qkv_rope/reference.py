"""Plain torch: defines the operator; the CPU path. See `fastvla_core.kernels.qkv_rope`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from .spec import Projection, RopeTable


def project(x_btw: Tensor, projection: Projection, *, head_dim: int) -> Tensor:
    """[b, t, w] to heads [b, h, t, d]."""
    flat = functional.linear(x_btw, projection.weight, projection.bias)
    return flat.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def qkv_rope(
    x_btw: Tensor,
    query: Projection | None,
    key: Projection,
    value: Projection,
    *,
    head_dim: int,
    rope: RopeTable | None,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Queries and keys rotated, values as they are."""
    made = [
        None if part is None else project(x_btw, part, head_dim=head_dim) for part in (query, key)
    ]
    if rope is not None:
        made = [None if heads is None else rope.rotate(heads) for heads in made]
    key_bgtd = made[1]
    assert key_bgtd is not None
    return made[0], key_bgtd, project(x_btw, value, head_dim=head_dim)
