"""The training loop: cached steps in, a policy out; a resumed run follows the same curve."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.models.adapters import add_adapters, merged_state, save_adapter
from fastvla_core.models.seeding import seeded_beside
from fastvla_core.models.weightless import weightless_copy
from fastvla_core.policy import FastVLA
from fastvla_core.sim.instructions import reword
from training.board import Board
from training.closed_loop import ClosedLoop, SuccessPoint
from training.dataset import Batch, StepDataset, prefetch
from training.key_pose import WithKeyPose
from training.learner import learner_of
from training.loss_curve import write_curve
from training.memory import MemoryEstimate, available_memory, estimate_memory, require_memory
from training.optimization import (
    learning_rate,
    make_optimizer,
    passes_in,
    recompute_activations,
    saved_activations,
)
from training.processes import ALONE, Processes, rows_of
from training.recipe import TrainConfig
from training.sharding import copies_of, own_part
from training.shared_loss import gradients_shared, shared_loss
from training.token_pruning import PruningObjective
from training.trainer_state import (
    LossPoint,
    averaged_state,
    changing_state,
    load_state,
    newest_state,
    save_state,
    training_tensors,
)
from training.zero import divide, is_engine

REPORT_EVERY = 20
Report = Callable[[LossPoint, int], None]


class Trainer:
    """Trains a policy on a dataset; one of several processes may do a share of each batch.

    Args:
        policy: Trained in place; its averaged weights are what is saved. With `config.lora` its
            layers get adapters, and what is saved has them added in. With `parallel: fsdp` each of
            several processes keeps its part of the weights, and the policy can no longer act.
        out: Holds `checkpoints/`, `loss.csv`, `loss.png` and, at the end, `policy/`; with
            `config.lora` also `adapter/`, as peft stores it.
        base: Names the checkpoint that an adapter belongs to.
        device: Where to train; None for where the policy is. It is moved there when its layers are
            packed, or layer by layer in parts: at full precision it may not fit.
        board: Write `tensorboard/` too.
        key_pose_head: What a run before learnt to tell the key poses with; None for a new one.

    Raises:
        DatasetError: nothing can be trained, or the batch cannot be shared out.
        CheckpointError: no layer is there to adapt.
        DependencyError: what `parallel` needs is missing, or too old.
    """

    def __init__(
        self,
        policy: FastVLA,
        *,
        dataset: StepDataset,
        config: TrainConfig,
        out: Path,
        processes: Processes = ALONE,
        base: str = "",
        device: torch.device | None = None,
        board: bool = False,
        key_pose_head: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._policy, self._dataset, self._config, self._out = policy, dataset, config, out
        self._processes, self._base = processes, base
        self._in_parts = config.parallel != "ddp" and processes.count > 1
        self._device = policy.device if device is None else device
        self._rows = rows_of(processes, batch_size=config.batch_size, parts=config.accumulate)
        self._model: nn.Module = policy.model
        # Before anything is trained or resumed: the policy as it is given is the teacher.
        self._pruning = config.pruning and PruningObjective(policy.model, config.pruning)
        if config.lora is not None:
            add_adapters(self._model, config.lora, seed=config.seed)
            self._layout = weightless_copy(self._model)
        if device is not None:
            if not self._in_parts:
                self._model.to(device)
            if self._pruning:
                self._pruning.to(device)
        self._learner, others = learner_of(policy, config, dataset=dataset, head=key_pose_head)
        digests = {"recordings": dataset.digest, "policy": policy.processor.digest}
        self._origin = {**digests, **others}
        if not any(p.requires_grad for p in self._learner.parameters()):
            raise DatasetError("the policy has no trainable weight (is it quantised?)")
        if config.activations == "recompute":
            recompute_activations(self._model)
        if self._in_parts:
            # Once in parts it cannot be run by one process alone.
            self.memory = processes.of_first(self._estimated)
        self._measure = shared_loss(
            self._learner,
            processes,
            device=self._device,
            parallel=config.parallel,
            objective=self._pruning or None,
        )
        self._optimizer: Any = _optimizer(self._learner, config)
        if config.parallel == "deepspeed" and self._in_parts:
            self._measure, self._optimizer = divide(
                self._measure, self._optimizer, config=config, device=self._device
            )
        # Without fp16 it does nothing.
        self._scaler = torch.amp.GradScaler(policy.device.type, enabled=config.precision == "fp16")
        self._ema = {k: v.detach().clone() for k, v in changing_state(self._learner).items()}
        judged = config.closed_loop
        self._closed_loop = None if judged is None else ClosedLoop(judged, out=out)
        self._curve: list[LossPoint] = []
        self._wants_board = board and processes.first
        self._board: Board | None = None

    def run(self, *, report: Report | None = None) -> Path:
        """Train to the last step, resuming from the newest checkpoint below `out`.

        Returns:
            The folder of the finished policy.
        Raises:
            CheckpointError: the checkpoint to resume from does not fit.
            DatasetError: the memory does not suffice, or the loss is not finite; the checkpoints
                before are kept.
        """
        config = self._config
        self._learner.train()
        available = available_memory(self._policy.device)
        require_memory(self.memory, available, config=config)
        first = self._resume()
        if self._wants_board:
            self._board = Board(self._out / "tensorboard", self._curve, self._successes())
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
                if saves and self._writes:
                    self._save_checkpoint(done)
        return self._finish()

    @property
    def key_pose_head(self) -> Mapping[str, Tensor] | None:
        """What tells the key poses, once trained; None where nothing does."""
        learner = self._learner
        return learner.head.state_dict() if isinstance(learner, WithKeyPose) else None

    @property
    def _writes(self) -> bool:
        # All that keep a part have to give it.
        return self._processes.first or self._in_parts

    @functools.cached_property
    def memory(self) -> MemoryEstimate:
        """What this process will need; measured once, before anything is trained."""
        return self._estimated()

    def _estimated(self) -> MemoryEstimate:
        self._learner.train()

        def measure(batch: Mapping[str, Tensor]) -> Tensor:
            learner: Any = self._learner
            with self._precision():
                generator = torch.Generator().manual_seed(0)
                return learner.loss(batch, generator=generator)["loss"]

        def samples(count: int) -> Mapping[str, Tensor]:
            frames = np.resize(self._dataset.training_frames, count)
            return self._prepared(self._dataset.batch(frames))

        part = len(self._rows) // self._config.accumulate
        estimate = estimate_memory(
            self._learner,
            measure,
            samples,
            config=self._config,
            part=part,
            processes=self._processes.count,
        )
        if self._pruning is None:
            return estimate
        # Every process has all of the teacher.
        weights = estimate.weights + self._pruning.memory_bytes
        return dataclasses.replace(estimate, weights=weights)

    def _resume(self) -> int:
        newest = newest_state(self._out / "checkpoints")
        if newest is None:
            return 0
        first, self._curve = load_state(
            newest,
            model=self._learner,
            ema=self._ema,
            optimizer=self._optimizer,
            scaler=self._scaler,
            config=self._settings,
            origin=self._origin,
        )
        return first

    @property
    def _settings(self) -> dict[str, Any]:
        settings = dataclasses.asdict(self._config)
        # Who keeps what does not change what is learnt: a run may go on either way.
        del settings["parallel"], settings["deepspeed"]
        # As JSON gives them back: rows as lists.
        return json.loads(json.dumps(settings))

    def _save_checkpoint(self, step: int) -> None:
        state = training_tensors(self._learner, self._ema, self._optimizer)
        tensors = copies_of(state, self._processes)
        averaged = self._averaged()
        if not self._processes.first:
            return
        folder = save_state(
            self._out / "checkpoints",
            tensors=tensors,
            scaler=self._scaler,
            step=step,
            config=self._settings,
            origin=self._origin,
            curve=self._curve,
            save_policy=functools.partial(self._save_policy, averaged),
        )
        write_curve(self._curve, self._out)
        if self._closed_loop is not None and self._closed_loop.is_due(step):
            point = self._closed_loop.judge(folder / "policy", step=step)
            if self._board is not None:
                self._board.add_success(point)

    def _successes(self) -> list[SuccessPoint]:
        return [] if self._closed_loop is None else self._closed_loop.points()

    def _finish(self) -> Path:
        folder = self._out / "policy"
        averaged = self._averaged() if self._writes else {}
        if self._processes.first:
            write_curve(self._curve, self._out)
            self._save_policy(averaged, folder)
            if (lora := self._config.lora) is not None:
                save_adapter(self._out / "adapter", self._layout, lora, base=self._base)
        if self._board is not None:
            self._board.close()
        self._processes.wait()
        self._learner.load_state_dict(self._ema, strict=False)
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
            rows=self._rows,
            augmentation=self._config.augmentation,
        )

    def _step(self, step: int, batch: Batch) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, config=self._config)
        self._optimizer.zero_grad(set_to_none=True)
        parts = self._config.accumulate
        size, total = len(batch.tasks) // parts, 0.0
        for part in range(parts):
            rows = slice(part * size, (part + 1) * size)
            last = part == parts - 1
            total += self._backward(step, part, batch.part(rows), last=last) / parts
        value = self._processes.mean(total)
        # At once: one more step, and a checkpoint of broken weights could replace a good one.
        if not math.isfinite(value):
            raise DatasetError(
                f"the loss is {value} at step {step + 1}; the last checkpoint is kept",
                mend="lower the learning rate, or look for broken values: `fastvla data inspect`",
            )
        self._scaler.unscale_(self._optimizer)
        if not is_engine(self._measure):
            nn.utils.clip_grad_norm_(self._learner.parameters(), self._config.gradient_clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._average(step)
        return value

    def _backward(self, step: int, part: int, batch: Batch, *, last: bool) -> float:
        # A generator per step and part, so that a resumed run draws the same times and noise, and
        # several processes draw what one does that takes their parts one after the other.
        number = part * self._processes.count + self._processes.rank
        seed = self._config.seed * 1_000_003 + step + (number << 40)
        generator = torch.Generator().manual_seed(seed)
        kept = saved_activations(self._config.activations, device=self._policy.device)
        with gradients_shared(self._measure, when=last):
            with self._precision(), kept, seeded_beside(generator, self._policy.device):
                loss = self._measure(self._prepared(batch), generator, step)
            self._scaler.scale(loss / self._config.accumulate).backward()
        return float(loss.detach())

    def _prepared(self, batch: Batch) -> dict[str, Tensor]:
        prepared = self._policy.training_batch(
            images=batch.images,
            image_mask=batch.image_mask,
            state=batch.state,
            actions=batch.actions,
            tasks=batch.tasks,
            action_is_pad=batch.action_is_pad,
            earlier=batch.earlier,
        )
        if batch.key_pose is not None:
            prepared["key_pose"] = batch.key_pose.to(self._policy.device)
        return prepared

    def _precision(self) -> contextlib.AbstractContextManager[None]:
        # Casts kept to be used again would keep whole weights of layers that are let go of.
        kept = self._config.parallel != "fsdp" or not self._in_parts
        here = self._policy.device
        return passes_in(self._config.precision, here=here, device=self._device, keep_casts=kept)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        # Young averages follow quickly: otherwise the random start stays in them for long.
        decay = min(self._config.ema_decay, (step + 1) / (step + 10))
        for name, whole in changing_state(self._learner).items():
            average, value = own_part(self._ema[name]), own_part(whole)
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
        if self._board is not None:
            self._board.add(point)
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
            with self._precision(), seeded_beside(generator, self._policy.device):
                batch = self._prepared(self._dataset.batch(chosen))
                losses.append(float(self._measure(batch, generator, self._config.steps)))
        return float(np.mean(losses))

    def _averaged(self) -> dict[str, Tensor]:
        state = averaged_state(self._model, learner=self._learner, ema=self._ema)
        return copies_of(state, self._processes)

    def _save_policy(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        if self._config.lora is not None:
            self._layout.load_state_dict(dict(weights), assign=True)
            weights = merged_state(self._layout)
        self._policy.with_weights(weights).save_pretrained(folder)


def _optimizer(learner: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    return make_optimizer(
        config.optimizer,
        [p for p in learner.parameters() if p.requires_grad],
        learning_rate=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
