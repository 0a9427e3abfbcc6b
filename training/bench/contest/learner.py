"""A contender that is trained: adapters on a packed network, ours or bitsandbytes'.

Run as a process: `python -m training.bench.contest.learner JOB`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastvla_core.engines.memory import reset_peak_memory
from fastvla_core.models.adapters import adapted_layers, add_adapters
from fastvla_core.models.lora import LoraConfig
from fastvla_core.models.peft_layers import import_peft
from fastvla_core.models.seeding import drawn_from
from training.bench.contest.child import Command, serve
from training.bench.contest.job import Batch, Job, load_inputs
from training.bench.contest.ours import load, use_bitsandbytes
from training.bench.contest.replay import peak_mb, synchronize
from training.optimization import make_optimizer

RANK, ALPHA, LEARNING_RATE = 16, 32.0, 1e-3


def commands(job: Job) -> Mapping[str, Command]:
    """What the process of a learner does.

    Options: `way` is "ours" or "bitsandbytes", `compute` fp32 or bf16, `batch` samples per step,
    `seed` of the flow's times and noise.
    """
    learner = Learner(job)
    reset_peak_memory(torch.device(job.device))
    return {"train": learner.train}


class Learner:
    """A packed network with fresh adapters, and batches that come again and again."""

    def __init__(self, job: Job) -> None:
        options, self._device = job.options, job.device
        self._bf16 = options["compute"] == "bf16"
        dtype = torch.bfloat16 if self._bf16 else torch.float32
        self._model = load(job.checkpoint, compute=dtype, device=job.device)
        lora = LoraConfig(rank=RANK, alpha=ALPHA, quantization="nf4")
        if options["way"] == "ours":
            add_adapters(self._model, lora)
        else:
            _peft_on_bitsandbytes(self._model, compute=dtype, device=job.device)
        self._model.to(job.device).train()
        adapters = [p for p in self._model.parameters() if p.requires_grad]
        for parameter in adapters:
            parameter.data = parameter.data.float()
        self.adapted = len(adapted_layers(self._model))
        self._optimizer = make_optimizer(
            "adamw", adapters, learning_rate=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0
        )
        self._batches = _batches(load_inputs(job.inputs, device=job.device), int(options["batch"]))
        self._seed, self._step = int(options["seed"]), 0

    def train(self, *, steps: int, seconds: float) -> Mapping[str, Any]:
        """Up to `steps` steps, fewer where `seconds` are over before; losses and times of each."""
        losses, times = [], []
        end = time.perf_counter() + seconds
        while len(times) < steps and (not times or time.perf_counter() < end):
            synchronize(self._device)
            start = time.perf_counter()
            loss = self._one_step()
            synchronize(self._device)
            times.append(time.perf_counter() - start)
            losses.append(loss)
        return {"losses": losses, "times_s": times, "peak_mb": peak_mb(self._device)}

    def _one_step(self) -> float:
        batch = self._batches[self._step % len(self._batches)]
        # Of the step, so that every contender learns from the same times and noise.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._step)
        self._step += 1
        self._optimizer.zero_grad(set_to_none=True)
        # As the trainer does: a processor is slow at the backward pass of fused attention.
        math = self._device == "cpu"
        kernel = sdpa_kernel(SDPBackend.MATH) if math else contextlib.nullcontext()
        with torch.autocast(self._device, torch.bfloat16, enabled=self._bf16), kernel:
            loss = self._model.loss(batch, generator=generator)["loss"]
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())


def _peft_on_bitsandbytes(model: Any, *, compute: torch.dtype, device: str) -> None:
    """peft's own adapters of bitsandbytes' own layers, where `add_adapters` would put ours."""
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    # Adapters make up for the rounding: theirs are on all layers that `add_adapters` packs.
    use_bitsandbytes(model, skip=model.full_precision, compute=compute, device=device)
    peft = import_peft()
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=names)
    model.requires_grad_(False)
    # How peft knows that it is to use its own adapters for bitsandbytes' layers.
    model.is_loaded_in_4bit = True  # type: ignore[assignment]
    # The seed of `add_adapters`, and the same layers in the same order: the same adapters.
    with drawn_from(0):
        peft.inject_adapter_in_model(config, model)


def _batches(inputs: list[Batch], size: int) -> list[Batch]:
    """Inputs put together; what a policy has to learn is noise of each sample's own."""
    batches = []
    for start in range(0, len(inputs) - size + 1, size):
        chosen = inputs[start : start + size]
        batch = {name: torch.cat([one[name] for one in chosen]) for name in chosen[0]}
        batch["action"] = batch.pop("noise")
        batches.append(batch)
    return batches


if __name__ == "__main__":
    serve(commands)
