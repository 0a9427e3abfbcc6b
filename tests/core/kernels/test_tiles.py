"""Which tiles a product gets, how they are kept, and how the search chooses; without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastvla_core.errors import DependencyError
from fastvla_core.kernels.tiles import (
    Product,
    Tiles,
    product_tiles,
    read_tiles,
    tiles_for,
    write_tiles,
)

from .tile_choice import Contest, candidates, fastest, require_gpu

PRODUCT = Product(operator="gated_mlp", rows=50, inputs=64, outputs=96, dtype="float32")
SLOW, FAST, WRONG, FAILS = (Tiles(m=m, n=32, k=32, warps=4, stages=1) for m in (32, 64, 128, 256))


def test_a_kept_table_is_read_back_and_added_to(tmp_path: Path):
    other = Product(operator="qkv_rope", rows=1, inputs=8, outputs=8, dtype="bfloat16")
    write_tiles({PRODUCT: SLOW, other: SLOW}, "Some GPU", folder=tmp_path)
    path = write_tiles({PRODUCT: FAST}, "Some GPU", folder=tmp_path)
    assert path.name == "tiles_Some_GPU.json"
    assert read_tiles("Some GPU", folder=tmp_path) == {PRODUCT: FAST, other: SLOW}
    assert read_tiles("Another GPU", folder=tmp_path) == {}


def test_a_product_that_nobody_measured_takes_the_rule():
    for rows in (1, 50, 500):
        product = Product(operator="x", rows=rows, inputs=8, outputs=8, dtype="bfloat16")
        expected = product_tiles(rows, torch.bfloat16)
        assert tiles_for(product, torch.device("cpu")) == expected


def test_a_measured_product_takes_its_tiles_by_the_name_of_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from fastvla_core.kernels import tiles

    write_tiles({PRODUCT: FAST}, "Some GPU", folder=tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Some GPU")
    monkeypatch.setattr(tiles, "_kept", lambda d: read_tiles(
        torch.cuda.get_device_name(d), folder=tmp_path))  # fmt: skip
    assert tiles_for(PRODUCT, torch.device("cuda", 0)) == FAST


def _contest() -> Contest:
    def call(tiles: Tiles) -> torch.Tensor:
        if tiles == FAILS:
            raise RuntimeError("out of shared memory")
        return torch.full((2,), 2.0 if tiles == WRONG else 1.0)

    return Contest(PRODUCT, (call, call), torch.ones(2))


def test_the_fastest_right_tiles_are_chosen_and_failures_passed_over(
    capsys: pytest.CaptureFixture[str],
):
    usual = product_tiles(PRODUCT.rows, torch.float32)
    speeds = iter([30.0, 20.0, 10.0])
    best, times = fastest(
        _contest(), [SLOW, FAST, WRONG, FAILS], time_us=lambda calls: next(speeds)
    )
    assert best == FAST
    assert times == {usual: 30.0, SLOW: 20.0, FAST: 10.0}
    assert "out of shared memory" in capsys.readouterr().out


def test_the_rule_stays_where_nothing_is_faster():
    speeds = iter([5.0, 6.0])
    best, _ = fastest(_contest(), [SLOW], time_us=lambda calls: next(speeds))
    assert best == product_tiles(PRODUCT.rows, torch.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_candidates_are_distinct_powers_of_two_that_a_product_can_take(dtype: str):
    found = candidates(dtype)
    assert len(set(found)) == len(found)
    for tiles in found:
        assert all(size & (size - 1) == 0 for size in (tiles.m, tiles.n, tiles.k, tiles.warps))
        assert tiles.m >= 16
        assert tiles.n >= 16
        assert tiles.k >= 32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_search_is_refused():
    with pytest.raises(DependencyError, match="PyTorch sees none"):
        require_gpu()
