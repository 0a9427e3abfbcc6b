"""The training loop: cached steps in, a policy out; a resumed run follows the same curve."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastvla_core.errors import DatasetError
from fastvla_core.policy import FastVLA
from fastvla_core.sim.instructions import reword
from training.dataset import Batch, StepDataset, prefetch
from training.recipe import TrainConfig
from training.trainer_state import LossPoint, load_state, newest_state, save_state

REPORT_EVERY = 20
Report = Callable[[LossPoint, int], None]


def learning_rate(step: int, *, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate` at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    low, high = config.final_learning_rate, config.learning_rate
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * share))


class Trainer:
    """Trains a policy on a dataset.

    Args:
        policy: Trained in place; its averaged weights are what is saved.
        out: Holds `checkpoints/`, `loss.csv`, `loss.png` and, at the end, `policy/`.
    """

    def __init__(
        self, policy: FastVLA, *, dataset: StepDataset, config: TrainConfig, out: Path
    ) -> None:
        self._policy, self._dataset, self._config, self._out = policy, dataset, config, out
        self._model: nn.Module = policy.model
        trained = [p for p in self._model.parameters() if p.requires_grad]
        if not trained:
            raise DatasetError("the policy has no trainable weight (is it quantised?)")
        self._optimizer = torch.optim.AdamW(
            trained,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._ema = {k: v.detach().clone() for k, v in self._model.state_dict().items()}
        self._curve: list[LossPoint] = []
        self._origin = {"recordings": dataset.digest, "policy": policy.processor.digest}

    def run(self, *, report: Report | None = None) -> Path:
        """Train to the last step, resuming from the newest checkpoint below `out`.

        Returns:
            The folder of the finished policy.
        Raises:
            CheckpointError: the checkpoint to resume from does not fit.
            DatasetError: the loss is not finite; the checkpoints before are kept.
        """
        config, checkpoints = self._config, self._out / "checkpoints"
        settings = dataclasses.asdict(config)
        first = 0
        if (newest := newest_state(checkpoints)) is not None:
            first, self._curve = load_state(
                newest,
                model=self._model,
                ema=self._ema,
                optimizer=self._optimizer,
                config=settings,
                origin=self._origin,
            )
        self._model.train()
        losses: list[float] = []
        since = time.perf_counter()
        steps = range(first, config.steps)
        with contextlib.closing(self._batches(steps)) as batches:
            for step, batch in zip(steps, batches):
                losses.append(self._step(step, batch))
                done = step + 1
                saves = done % config.checkpoint_every == 0 or done == config.steps
                # A checkpoint ends a point of the curve too, so that a resumed curve is the same.
                if done % REPORT_EVERY == 0 or saves:
                    rate = len(losses) * config.batch_size / (time.perf_counter() - since)
                    self._report(done, losses, rate, report)
                    losses, since = [], time.perf_counter()
                if saves:
                    save_state(
                        checkpoints,
                        model=self._model,
                        ema=self._ema,
                        optimizer=self._optimizer,
                        step=done,
                        config=settings,
                        origin=self._origin,
                        curve=self._curve,
                        save_policy=self._save_averaged,
                    )
                    self._write_curve()
        self._write_curve()
        folder = self._out / "policy"
        self._save_averaged(folder)
        self._model.load_state_dict(self._ema)
        self._model.eval()
        return folder

    def _batches(self, steps: range) -> Generator[Batch, None, None]:
        return prefetch(
            self._dataset,
            seed=self._config.seed,
            steps=steps,
            batch_size=self._config.batch_size,
            camera_dropout=self._config.camera_dropout,
            reword=reword if self._config.reword else None,
        )

    def _step(self, step: int, batch: Batch) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, config=self._config)
        # A generator per step, so that a resumed run draws the same times and noise.
        generator = torch.Generator().manual_seed(self._config.seed * 1_000_003 + step)
        with self._precision():
            loss = self._loss(batch, generator)
        value = float(loss.detach())
        # At once: one more step, and a checkpoint of broken weights could replace a good one.
        if not math.isfinite(value):
            raise DatasetError(
                f"the loss is {value} at step {step + 1}; the last checkpoint is kept",
                mend="lower the learning rate, or look for broken values: `fastvla data inspect`",
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), self._config.gradient_clip)
        self._optimizer.step()
        self._average(step)
        return value

    def _loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        prepared = self._policy.training_batch(
            images=batch.images,
            image_mask=batch.image_mask,
            state=batch.state,
            actions=batch.actions,
            tasks=batch.tasks,
        )
        return self._policy.model.loss(prepared, generator=generator)["loss"]

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        device = self._policy.device.type
        autocast = torch.autocast(device, torch.bfloat16, enabled=self._config.precision == "bf16")
        # On a CPU the backward pass of fused attention is three times slower than plain matmuls.
        kernel = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else contextlib.nullcontext()
        with autocast, kernel:
            yield

    @torch.no_grad()
    def _average(self, step: int) -> None:
        # Young averages follow quickly: otherwise the random start stays in them for long.
        decay = min(self._config.ema_decay, (step + 1) / (step + 10))
        for name, value in self._model.state_dict().items():
            average = self._ema[name]
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    def _report(self, step: int, losses: list[float], rate: float, report: Report | None) -> None:
        with_validation = step % (REPORT_EVERY * 10) == 0 or step == self._config.steps
        point = LossPoint(
            step=step,
            loss=float(np.mean(losses)),
            validation_loss=self.validation_loss() if with_validation else None,
            samples_per_s=rate,
        )
        self._curve.append(point)
        if report is not None:
            report(point, self._config.steps)

    @torch.no_grad()
    def validation_loss(self, *, batches: int = 4) -> float | None:
        """Loss over fixed frames of episodes that are not trained on; None when there are none."""
        frames = self._dataset.validation_frames
        if not len(frames):
            return None
        random, losses = np.random.default_rng(1), []
        generator = torch.Generator().manual_seed(1)
        for _ in range(batches):
            chosen = random.choice(frames, self._config.batch_size)
            with self._precision():
                losses.append(float(self._loss(self._dataset.batch(chosen), generator)))
        return float(np.mean(losses))

    def _save_averaged(self, folder: Path) -> None:
        raw = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(self._ema)
        self._policy.save_pretrained(folder)
        self._model.load_state_dict(raw)

    def _write_curve(self) -> None:
        with (self._out / "loss.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([f.name for f in dataclasses.fields(LossPoint)])
            writer.writerows(dataclasses.astuple(p) for p in self._curve)
        plot_curve(self._curve, self._out / "loss.png")


def plot_curve(curve: list[LossPoint], path: Path) -> None:
    """Draw training and validation loss over steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.plot([p.step for p in curve], [p.loss for p in curve], label="training", linewidth=1)
    held = [(p.step, p.validation_loss) for p in curve if p.validation_loss is not None]
    if held:
        axes.plot(*zip(*held), label="validation", marker=".")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
