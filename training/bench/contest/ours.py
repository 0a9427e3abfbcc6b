"""The contenders that are built from our own network, and the float32 reference.

Run as a process: `python -m training.bench.contest.ours JOB`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastvla_core.models.loading import load_config, load_model, skipped_layers
from fastvla_core.quant import quantizable_layers, quantize_module
from training.bench.contest.child import Run, serve_inference
from training.bench.contest.engines import prepared
from training.bench.contest.job import Batch, Job

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build(job: Job, inputs: list[Batch]) -> Run:
    """A contender by its options.

    Options: `compute` is fp32 or bf16, `weights` that or nf4 or int8. `way` is "plain" for the
    network as it is written, "compile" for all of it in `torch.compile`, "bitsandbytes" for its
    linear layers in theirs, or else the name of one of our engines.
    """
    options = job.options
    compute, weights, way = _DTYPES[options["compute"]], options["weights"], options["way"]
    model = load(job.checkpoint, compute=compute, device=job.device)
    if way == "bitsandbytes":
        whole = skipped_layers(model, "nf4")
        use_bitsandbytes(model, skip=whole, compute=compute, device=job.device)
    elif weights in ("nf4", "int8"):
        quantize_module(model, weights, skip=skipped_layers(model, weights))
    if way in ("plain", "bitsandbytes"):
        return lambda batch: model(batch, batch["noise"])
    if way == "compile":
        return _compiled(model, job.device)
    return prepared(way, model, inputs[0])


def load(checkpoint: str, *, compute: torch.dtype, device: str) -> Any:
    """The network at full precision, ready for inference."""
    folder = Path(checkpoint)
    family, config = load_config(folder)
    # To the device first: a GPU converts in no time.
    model = load_model(family, config, folder, quantization=None).to(device).to(compute)
    return model.requires_grad_(False)


def use_bitsandbytes(
    model: Any, *, skip: tuple[str, ...], compute: torch.dtype, device: str
) -> tuple[str, ...]:
    """Put bitsandbytes' NF4 layers where our NF4 ones would be; returns their names.

    Args:
        skip: Patterns of the layers that stay as they are.
    """
    from bitsandbytes.nn.modules import Linear4bit

    layers = quantizable_layers(model, skip=skip)
    for name, linear in layers.items():
        packed = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=compute,
            compress_statistics=False,
            quant_type="nf4",
        )
        packed.load_state_dict(linear.state_dict())
        if packed.bias is not None:
            packed.bias.data = packed.bias.data.to(compute)
        # It packs on the way to the device.
        model.set_submodule(name, packed.cpu().to(device).requires_grad_(False))
    return tuple(layers)


def _compiled(model: nn.Module, device: str) -> Run:
    # On a processor "max-autotune" tries templates for hours and finds the library's product.
    mode = "max-autotune" if device == "cuda" else "default"

    def request(batch: Batch, noise_bta: Tensor) -> Tensor:
        return model(batch, noise_bta)

    compiled = torch.compile(request, mode=mode, dynamic=False)
    return lambda batch: compiled(_without_noise(batch), batch["noise"])


def _without_noise(batch: Batch) -> Batch:
    return {name: tensor for name, tensor in batch.items() if name != "noise"}


if __name__ == "__main__":
    serve_inference(build)
