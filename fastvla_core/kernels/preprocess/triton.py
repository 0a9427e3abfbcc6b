"""Triton: all cameras in one launch, each with its own size, strides and encoding.

A table on the device holds one row of integers per camera, its address among them. Build it once
for static buffers (`image_table`) and launch many times (`launch`), say from a CUDA graph.
"""

# Kernels take their pointers by position, and pyright does not see what a launch adds.
# ruff: noqa: PLR0917
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .spec import CHANNEL_ORDER, Encoding, PreprocessSpec, fit

_COLUMNS = 13
_PIXELS_PER_PROGRAM = 256


@triton.jit
def _preprocess_kernel(
    table,
    out,
    cameras,
    H: tl.constexpr,
    W: tl.constexpr,
    PATCH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    camera = tl.program_id(1)
    batch = tl.program_id(2)
    row = table + camera * COLUMNS
    base = tl.load(row).to(tl.pointer_type(tl.uint8))
    in_h = tl.load(row + 1).to(tl.int32)
    in_w = tl.load(row + 2).to(tl.int32)
    stride_h = tl.load(row + 4)
    stride_w = tl.load(row + 5)
    stride_c = tl.load(row + 6)
    fit_h = tl.load(row + 7).to(tl.int32)
    fit_w = tl.load(row + 8).to(tl.int32)
    top = tl.load(row + 9).to(tl.int32)
    left = tl.load(row + 10).to(tl.int32)
    red = tl.load(row + 11)
    step = tl.load(row + 12)
    base += batch * tl.load(row + 3)

    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    y = pixel // W
    x = pixel % W
    in_result = pixel < H * W
    covered = in_result & (y >= top) & (y < top + fit_h) & (x >= left) & (x < left + fit_w)

    scale_y = tl.div_rn(in_h.to(tl.float32), fit_h.to(tl.float32))
    scale_x = tl.div_rn(in_w.to(tl.float32), fit_w.to(tl.float32))
    source_y = tl.maximum(((y - top).to(tl.float32) + 0.5) * scale_y - 0.5, 0.0)
    source_x = tl.maximum(((x - left).to(tl.float32) + 0.5) * scale_x - 0.5, 0.0)
    y0 = tl.minimum(source_y.to(tl.int32), in_h - 1)
    x0 = tl.minimum(source_x.to(tl.int32), in_w - 1)
    y1 = tl.minimum(y0 + 1, in_h - 1)
    x1 = tl.minimum(x0 + 1, in_w - 1)
    wy = source_y - y0.to(tl.float32)
    wx = source_x - x0.to(tl.float32)
    if PATCH == 0:
        place = pixel
        plane = H * W
    else:
        in_patch = (y % PATCH) * PATCH + x % PATCH
        place = ((y // PATCH) * (W // PATCH) + x // PATCH) * (3 * PATCH * PATCH) + in_patch
        plane = PATCH * PATCH
    out += (batch * cameras + camera).to(tl.int64) * (3 * H * W)

    for colour in tl.static_range(3):
        source = base + (red + step * colour) * stride_c
        row0 = source + y0 * stride_h
        row1 = source + y1 * stride_h
        v00 = tl.load(row0 + x0 * stride_w, mask=covered, other=0).to(tl.float32)
        v01 = tl.load(row0 + x1 * stride_w, mask=covered, other=0).to(tl.float32)
        v10 = tl.load(row1 + x0 * stride_w, mask=covered, other=0).to(tl.float32)
        v11 = tl.load(row1 + x1 * stride_w, mask=covered, other=0).to(tl.float32)
        upper = v00 * (1.0 - wx) + v01 * wx
        lower = v10 * (1.0 - wx) + v11 * wx
        value = tl.div_rn(upper * (1.0 - wy) + lower * wy, 127.5) - 1.0
        tl.store(out + place + colour * plane, value.to(out.dtype.element_ty), mask=in_result)


def image_table(
    images: Sequence[Tensor], encodings: Sequence[Encoding], spec: PreprocessSpec
) -> Tensor:
    """Return the rows that `launch` reads, int64 [cameras, 13], on the images' device.

    Holds addresses: valid while the images live. Copies to the device: not inside a graph capture.
    """
    rows: list[tuple[int, ...]] = []
    for image, encoding in zip(images, encodings):
        height, width = image.shape[-3:-1]
        area = fit(height, width, spec)
        stride_b = image.stride(0) if image.ndim == 4 else 0
        place = (area.height, area.width, area.top, area.left)
        strides = (stride_b, *image.stride()[-3:])
        address = image.data_ptr()
        rows.append((address, height, width, *strides, *place, *CHANNEL_ORDER[encoding]))
    return torch.tensor(rows, dtype=torch.int64).to(images[0].device, non_blocking=True)


def launch(table: Tensor, out: Tensor, spec: PreprocessSpec) -> None:
    """Fill `out`, contiguous [cameras, *spec.image_shape] or [B, cameras, ...], from a table."""
    cameras = table.shape[0]
    batch = out.shape[0] if out.ndim > 1 + len(spec.image_shape) else 1
    blocks = triton.cdiv(spec.height * spec.width, _PIXELS_PER_PROGRAM)
    _preprocess_kernel[(blocks, cameras, batch)](
        table,
        out,
        cameras,
        H=spec.height,
        W=spec.width,
        PATCH=spec.patch or 0,
        COLUMNS=_COLUMNS,
        PIXELS=_PIXELS_PER_PROGRAM,
    )


def preprocess(
    images: Sequence[Tensor], encodings: Sequence[Encoding], spec: PreprocessSpec
) -> Tensor:
    """Return [*lead, cameras, *spec.image_shape]; see `fastvla_core.kernels.preprocess`."""
    shape = (*images[0].shape[:-3], len(images), *spec.image_shape)
    out = torch.empty(shape, dtype=spec.dtype, device=images[0].device)
    if out.numel():
        launch(image_table(images, encodings, spec), out, spec)
    return out
