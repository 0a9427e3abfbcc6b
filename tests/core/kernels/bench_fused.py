"""Time the fused kernels and the plain torch they stand for, at the sizes of published policies.

    python -m tests.core.kernels.bench_fused [--device cpu|cuda] [--json FILE]

On a CPU only plain torch runs. On CUDA each kernel is first checked against it; medians of the
time per call, eager, in microseconds.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastvla_core.kernels import flow_step, gated_mlp, qkv_rope, residual_mlp, rms_norm
from fastvla_core.kernels.qkv_rope import Projection, RopeTable
from fastvla_core.kernels.residual_mlp import Block
from tests.core.kernels.bench import median_us

TOLERANCE = 5e-2


@dataclass(frozen=True, slots=True)
class Case:
    """One operator at one size: `run(reference)` and `run(triton)` have to give the same."""

    name: str
    operator: ModuleType
    run: Callable[[Any], Tensor]


def cases(noise: Callable[..., Tensor]) -> Iterator[Case]:
    """Experts of pi0 and SmolVLA with chunks of 50."""
    for policy, width, hidden, heads, groups, d, act in [
        ("pi0", 1024, 4096, 8, 1, 256, "gelu_tanh"),
        ("SmolVLA", 720, 2048, 15, 5, 64, "silu"),
    ]:
        x, branch, scale = noise(1, 50, width), noise(1, 50, width), noise(width)
        parts = [Projection(noise(n * d, width) / 32) for n in (heads, groups, groups)]
        angles = torch.rand(50, d // 2, device=x.device)
        rope = RopeTable(angles.cos(), angles.sin())
        gate, up = noise(hidden, width) / 32, noise(hidden, width) / 32
        out, noisy = noise(32, width) / 32, noise(1, 50, 32).float()
        yield Case(f"{policy} add_rms_norm", rms_norm, _adding(x, branch, scale))
        yield Case(
            f"{policy} qkv_rope",
            qkv_rope,
            lambda m, x=x, parts=parts, d=d, rope=rope: m.qkv_rope(
                x, *parts, head_dim=d, rope=rope
            )[0],
        )
        yield Case(
            f"{policy} gated_mlp",
            gated_mlp,
            lambda m, x=x, gate=gate, up=up, act=act: m.gated_mlp(x, gate, up, activation=act),
        )
        yield Case(
            f"{policy} euler_step",
            flow_step,
            lambda m, x=x, out=out, noisy=noisy: m.euler_step(noisy, x, out, None, steps=10),
        )
    x = noise(50, 512)
    block = Block(
        norm_weight=noise(512),
        norm_bias=noise(512),
        weight=noise(512, 512) / 22,
        bias=noise(512),
        eps=1e-5,
    )
    yield Case("residual block of 512", residual_mlp, _residual(x, block))


def _adding(x: Tensor, branch: Tensor, weight: Tensor) -> Callable[[Any], Tensor]:
    def run(module: Any) -> Tensor:
        if hasattr(module, "RmsNorm"):
            return module.RmsNorm.apply(x, branch, None, weight, None, 1e-6, 0.0)[1]
        return module.rms_norm(module.add(x, branch), weight, eps=1e-6, offset=0.0)

    return run


def _residual(x: Tensor, block: Block) -> Callable[[Any], Tensor]:
    def run(module: Any) -> Tensor:
        if hasattr(module, "ResidualBlock"):
            return module.ResidualBlock.apply(x, *block.tensors, block.eps, True)
        return module.add_norm_relu(x, block)

    return run


def measure(device: torch.device) -> dict[str, dict[str, float]]:
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    report: dict[str, dict[str, float]] = {}
    for case in cases(noise):
        plain: Any = case.operator.reference
        row = {"plain": median_us(lambda _, case=case, plain=plain: case.run(plain), device)}
        if device.type == "cuda":
            fused = importlib.import_module(f"{case.operator.__name__}.triton")
            worst = (case.run(fused).float() - case.run(plain).float()).abs().max()
            assert worst < TOLERANCE, (case.name, worst)
            row["fused"] = median_us(lambda _, case=case, m=fused: case.run(m), device)
        report[case.name] = row
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        report = measure(torch.device(args.device))
    for name, row in report.items():
        print(name, {which: round(value, 1) for which, value in row.items()})
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
