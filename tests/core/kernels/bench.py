"""Time one call of each kernel and of what it competes with.

    python -m tests.core.kernels.bench [--threads 1] [--device cpu|cuda] [--json FILE]

Medians of the time per call on random inputs, cycled so that no cache holds them all on a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fastvla_core.kernels.preprocess import PreprocessSpec, preprocess
from fastvla_core.quant import Int8Linear, Nf4Linear, dequantized

REPEATS = 15
BUDGET_S = 0.02
SHAPES_CPU = [(8, 128, 384), (1, 128, 384), (8, 512, 128), (1, 512, 128), (64, 128, 128)]
SHAPES_CUDA = [
    (50, 2048, 1024),
    (50, 4096, 1024),
    (50, 1024, 4096),
    (50, 960, 720),
    (1, 2048, 2048),
    (512, 16384, 2048),
    (512, 1152, 4304),
]


def median_us(call: Callable[[int], object], device: torch.device) -> float:
    """Return the median time of `call(i)` [us], timed in runs of about 20 ms."""

    def run(count: int) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for index in range(count):
            call(index)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    run(10)
    count = max(3, int(BUDGET_S / (run(10) / 10)))
    return statistics.median(run(count) / count for _ in range(REPEATS)) * 1e6


def linear_rows(shape: tuple[int, int, int], device: torch.device) -> dict[str, float]:
    rows, outputs, inputs = shape
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    copies = 1 if device.type == "cpu" else max(2, int(2e8 / (outputs * inputs)))
    linears = [nn.Linear(inputs, outputs) for _ in range(min(copies, 64))]
    xs = [torch.randn(rows, inputs, device=device, dtype=dtype) for _ in linears]
    groups: dict[str, list[nn.Module]] = {
        "nf4": [Nf4Linear.from_linear(linear) for linear in linears],
        "nf4 nested": [Nf4Linear.from_linear(linear, nested=True) for linear in linears],
        "int8": [Int8Linear.from_linear(linear) for linear in linears],
        "dense": list(linears),
        **bitsandbytes_layers(linears),
    }
    result: dict[str, float] = {}
    for name, layers in groups.items():
        # To the device first: bitsandbytes packs on that step, and its packed weight has no dtype.
        placed = [
            layer.to(device) if "bits" in name else layer.to(device, dtype) for layer in layers
        ]
        with torch.inference_mode():
            result[name] = median_us(caller(placed, xs), device)
            if name == "nf4":
                with dequantized(nn.ModuleList(placed)):
                    result["nf4 held"] = median_us(caller(placed, xs), device)
    return result


def bitsandbytes_layers(linears: list[nn.Linear]) -> dict[str, list[nn.Module]]:
    """Return the same layers in bitsandbytes' NF4, or nothing where it is missing."""
    try:
        from bitsandbytes.nn import Linear4bit
    except ImportError:
        return {}
    layers: list[nn.Module] = []
    for linear in linears:
        layer = Linear4bit(linear.in_features, linear.out_features, quant_type="nf4")
        layer.load_state_dict(linear.state_dict())
        layers.append(layer)
    return {"bitsandbytes nf4 nested": layers}


def caller(layers: list[nn.Module], xs: list[Tensor]) -> Callable[[int], object]:
    pairs = itertools.cycle(list(zip(layers, xs, strict=True)))

    def call(_: int) -> object:
        layer, x = next(pairs)
        return layer(x)

    return call


def image_rows(device: torch.device) -> dict[str, float]:
    def noise(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)

    nano = PreprocessSpec(height=96, width=96)
    pi0 = PreprocessSpec(height=224, width=224)
    patches = PreprocessSpec(height=224, width=224, patch=14)
    cases = {
        "2 x 96x96 as they are": ([noise(96, 96, 3) for _ in range(2)], nano),
        "batch 32, 2 x 96x96 as they are": ([noise(32, 96, 96, 3) for _ in range(2)], nano),
        "3 x 480x640 to 224": ([noise(480, 640, 3) for _ in range(3)], pi0),
        "3 x 480x640 to 224, patches": ([noise(480, 640, 3) for _ in range(3)], patches),
    }
    return {
        name: median_us(lambda _, images=images, spec=spec: preprocess(images, spec), device)
        for name, (images, spec) in cases.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    shapes = SHAPES_CPU if device.type == "cpu" else SHAPES_CUDA
    report = {f"linear {shape}": linear_rows(shape, device) for shape in shapes}
    report["preprocess"] = image_rows(device)
    for title, row in report.items():
        print(title, {name: round(value, 1) for name, value in row.items()})
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
