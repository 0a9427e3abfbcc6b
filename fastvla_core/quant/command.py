"""`fastvla quantize`: write a checkpoint with 4- or 8-bit weights, and say what that costs."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

HELP = "write a checkpoint with NF4 or 8-bit weights"

_OBSERVATIONS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare checkpoint, mode and output folder."""
    parser.add_argument("checkpoint", help="folder, shipped name or Hub repository")
    parser.add_argument(
        "--mode", choices=("nf4", "int8"), default="nf4", help="bits per weight (default: nf4)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Quantise, save, read back, and print sizes and the deviation from full precision.

    Raises:
        CheckpointError: The checkpoint is missing or damaged.
        QuantError: It is quantised already, cannot be, or would be overwritten.
    """
    report = quantize_checkpoint(args.checkpoint, mode=args.mode, out=args.out)
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 0


def quantize_checkpoint(checkpoint: str, *, mode: str, out: Path) -> dict[str, Any]:
    """Write `checkpoint` to `out` with its large linear layers quantised.

    Returns:
        "bytes" and "parts" (memory before and after, in total and for each part of the network),
        "layers" (how many were quantised), "cosine" (worst and mean over random observations).
    Raises:
        CheckpointError, QuantError: see `run`.
    """
    from fastvla_core.errors import QuantError

    from .convert import memory_bytes, quantized_layers

    # A command stands above the policy although its room stands below; as in `cli`, by name.
    policies = importlib.import_module("fastvla_core.policy").FastVLA
    full = policies.from_pretrained(checkpoint)
    if full.quantization is not None:
        raise QuantError(
            f"{checkpoint} is quantised already ({full.quantization})",
            mend="give the checkpoint at full precision that it was made from",
        )
    broken = [name for name, t in full.model.state_dict().items() if not bool(t.isfinite().all())]
    if broken:
        raise QuantError(
            f"{checkpoint}: '{broken[0]}' holds NaN or infinity",
            mend="the checkpoint is damaged; use an earlier one",
        )
    if Path(checkpoint).exists() and out.exists() and out.samefile(checkpoint):
        raise QuantError(
            f"--out {out} is the checkpoint itself", mend="name another folder for the result"
        )
    policies.from_pretrained(checkpoint, quantization=mode).save_pretrained(out)
    # What was written is compared: a file that does not load shows here and not on the robot.
    packed = policies.from_pretrained(out)
    return {
        "mode": mode,
        "out": str(out),
        "layers": len(quantized_layers(packed.model)),
        "bytes": _before_after(memory_bytes(full.model), memory_bytes(packed.model)),
        "parts": {
            name: _before_after(memory_bytes(part), memory_bytes(packed.model.get_submodule(name)))
            for name, part in _parts(full.model)
        },
        "cosine": compare(full, packed),
    }


def compare(full: Any, packed: Any) -> dict[str, float]:
    """Return the worst and the mean cosine between the actions of two policies.

    The actions are the network's own, normalised and relative, for random images and states:
    absolute targets would hide a deviation behind the joint positions that both policies add.
    """
    import torch

    observations = [full.processor.random_observation(seed) for seed in range(_OBSERVATIONS)]
    shape = (_OBSERVATIONS, *full.config.noise_shape)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    actions: list[torch.Tensor] = []
    for policy in (full, packed):
        batch = policy.processor.observation_batch(observations, device=policy.device)
        with torch.inference_mode():
            actions.append(policy.model.eval()(batch, noise.to(policy.device)).flatten(1).double())
    cosines = torch.cosine_similarity(actions[0], actions[1])
    return {"worst": cosines.min().item(), "mean": cosines.mean().item()}


def as_text(report: dict[str, Any]) -> str:
    """Return the report for people."""
    rows = [*report["parts"].items(), ("all", report["bytes"])]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'part':<{width}}  {'before':>10}  {'after':>10}"]
    for name, sizes in rows:
        lines.append(f"{name:<{width}}  {_size(sizes['before']):>10}  {_size(sizes['after']):>10}")
    cosine = report["cosine"]
    lines += [
        f"{report['layers']} layers in {report['mode']}, written to {report['out']}",
        f"action cosine to full precision, {_OBSERVATIONS} random observations: "
        f"worst {cosine['worst']:.4f}, mean {cosine['mean']:.4f}",
    ]
    return "\n".join(lines)


def _parts(model: Any) -> list[tuple[str, Any]]:
    """Return the network's parts two levels deep, leaving out those without weights."""
    from .convert import memory_bytes

    parts: list[tuple[str, Any]] = []
    for name, child in model.named_children():
        inner = [(f"{name}.{sub}", part) for sub, part in child.named_children()]
        parts += inner or [(name, child)]
    return [(name, part) for name, part in parts if memory_bytes(part)]


def _before_after(before: int, after: int) -> dict[str, int]:
    return {"before": before, "after": after}


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count} B"
