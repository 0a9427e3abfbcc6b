"""The loss of a policy that learns to do with fewer visual tokens.

Flow matching as before, plus what the same policy said before this training with all of its
tokens, plus, for a learned scorer, that its chances stay near the share that is kept.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastvla_core.errors import DatasetError
from fastvla_core.models.vision_tokens.options import ALL_TOKENS
from fastvla_core.models.vision_tokens.pruning import NO_HINTS, Hints
from fastvla_core.models.vision_tokens.scores import sparsity
from fastvla_core.quant import memory_bytes
from training.learning_options import PruningTraining


class PruningObjective:
    """The loss of a training step, and the teacher in it.

    Args:
        model: The network as it is before training; it is copied.
        config: Weights, ratio and curriculum.
    Raises:
        DatasetError: the network's visual tokens cannot be pruned so.
    """

    def __init__(self, model: Any, config: PruningTraining) -> None:
        known = getattr(model, "prunings", ())
        if config.mode not in known:
            raise DatasetError(
                f"training.pruning.mode: this policy cannot prune by '{config.mode}'",
                mend=f"one of {', '.join(known)}" if known else "leave `pruning` out of the recipe",
            )
        self._config = config
        self._teacher = copy.deepcopy(model).eval().requires_grad_(False)

    @property
    def memory_bytes(self) -> int:
        """What the teacher takes; it is never packed."""
        return memory_bytes(self._teacher)

    def to(self, device: torch.device) -> None:
        """Move the teacher."""
        self._teacher.to(device)

    def __call__(
        self, model: Any, batch: Mapping[str, Tensor], *, generator: torch.Generator, step: int
    ) -> Tensor:
        """The loss at a step, a scalar with gradient; `generator` is used as by `model.loss`."""
        config, options = self._config, self._config.at(step)
        samples = model.flow_samples(batch, generator=generator)
        taught, hints = self._teach(samples, batch)
        _, prefix = model.observed(batch, options, hints=hints)
        predicted = model.predicted(samples, prefix, batch)
        loss = model.flow_loss(samples, predicted, batch)["loss"]
        if config.distillation:
            guided = dataclasses.replace(samples, target=taught)
            loss = loss + config.distillation * model.flow_loss(guided, predicted, batch)["loss"]
        if prefix.kept is not None and prefix.kept.gates_bi is not None:
            loss = loss + config.sparsity * sparsity(prefix.kept.gates_bi, keep=options.keep)
        return loss

    def distance(
        self, model: Any, batch: Mapping[str, Tensor], *, generator: torch.Generator
    ) -> float:
        """How far the pruned model is from its teacher: mean squared difference of velocities."""
        options = self._config.vision_tokens
        with torch.no_grad():
            samples = model.flow_samples(batch, generator=generator)
            taught, hints = self._teach(samples, batch)
            _, prefix = model.observed(batch, options, hints=hints)
            predicted = model.predicted(samples, prefix, batch)
            guided = dataclasses.replace(samples, target=taught)
            return float(model.flow_loss(guided, predicted, batch)["loss"])

    @torch.no_grad()
    def _teach(self, samples: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Hints]:
        """The teacher's velocities, and what it looks at: the previous chunk's attention."""
        layout, prefix = self._teacher.observed(batch, ALL_TOKENS)
        if self._config.mode != "adaptive":
            return self._teacher.predicted(samples, prefix, batch), NO_HINTS
        with self._teacher.watch() as watch:
            taught = self._teacher.predicted(samples, prefix, batch)
        attention_bp = watch.attention_bq
        places_i = layout.image_places(attention_bp.device)
        return taught, Hints(attention_bi=attention_bp[:, places_i])
