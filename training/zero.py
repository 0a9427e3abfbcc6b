"""Every process keeps its part of the optimiser's states: DeepSpeed's ZeRO, stages 1 and 2.

Weights and averages are whole in every process. Each updates its part of the weights (which
DeepSpeed keeps a copy of) and sends it to the others; in stage 2 it also gets only its part of the
gradients. Stage 3 is not offered: it does not see the outputs of our layers, which are dataclasses;
`sharding.py` parts the weights too.

Source: arXiv:1910.02054.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from fastvla_core.errors import DependencyError
from training.recipe import TrainConfig

_MOMENTS = ("exp_avg", "exp_avg_sq")


def divide(
    loss: nn.Module, optimizer: torch.optim.Optimizer, *, config: TrainConfig, device: torch.device
) -> tuple[nn.Module, ZeroOptimizer]:
    """A loss whose gradients DeepSpeed shares, and the optimiser that keeps parts of its states.

    Args:
        optimizer: Of this process, with nothing done yet; DeepSpeed takes it over.
        device: Of this process; the loss is moved there.
    Raises:
        DependencyError: DeepSpeed is not installed.
    """
    deepspeed = _deepspeed(device)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    engine, *_ = deepspeed.initialize(model=loss, optimizer=optimizer, config=engine_config(config))
    return engine, ZeroOptimizer(engine, trained)


def is_engine(loss: nn.Module) -> TypeGuard[Any]:
    """Whether a loss has become DeepSpeed's."""
    # Importing it to ask takes seconds of every start.
    return hasattr(loss, "set_gradient_accumulation_boundary")


def engine_config(config: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's configuration: what the recipe gives it, and what follows from the rest of it."""
    ours: dict[str, Any] = {
        # One backward pass at a time: which of them is a batch's last one is said by the loop.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.gradient_clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if config.precision == "bf16":
        # Gradients travel in float32, as with the others.
        ours["torch_autocast"] = {
            "enabled": True,
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        }
    return {**config.deepspeed, **ours}


class ZeroOptimizer:
    """A DeepSpeed engine in the place of the optimiser of a training loop.

    Its `state_dict` has whole states, those of an optimiser that keeps all of them, and it loads
    such. All processes have to call both, and get and give the same.
    """

    def __init__(self, engine: Any, parameters: Sequence[nn.Parameter]) -> None:
        self._engine, self._parameters = engine, parameters

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Hyper-parameters; what is changed there counts from the next step on."""
        return self._zero.param_groups

    @property
    def state(self) -> Mapping[Tensor, dict[str, Any]]:
        """States of the part that this process keeps, by its flat weights."""
        return self._zero.optimizer.state

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Nothing: the engine forgets gradients when it has made a step of them."""

    def step(self) -> None:
        """Clip the gradients, update the weights of one's part, and get those of the others."""
        self._engine.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of every weight by its number, as PyTorch's AdamW has it."""
        from deepspeed.utils import safe_get_full_optimizer_state

        if not self.state:
            return {"state": {}, "param_groups": []}
        count = next(iter(self.state.values()))["step"]
        states: dict[int, dict[str, Tensor]] = {}
        for index, weight in enumerate(self._parameters):
            moments: dict[str, Any] = {
                key: safe_get_full_optimizer_state(weight, key) for key in _MOMENTS
            }
            # Weights that no loss has reached yet have no state elsewhere.
            if moments["exp_avg_sq"].any():
                states[index] = {"step": count.detach().cpu().clone(), **moments}
        return {"state": states, "param_groups": []}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over one's part of whole states, and the weights as they are now."""
        from deepspeed.utils import (
            lazy_init_hp_params_optimizer_state,
            safe_set_full_optimizer_state,
        )

        zero = self._zero
        zero.refresh_fp32_params()
        found: Mapping[int, Mapping[str, Tensor]] = state["state"]
        step = next(iter(found.values()))["step"]
        for weights, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups):
            moments = {key: torch.zeros_like(flat) for key in _MOMENTS}
            counted = step.to(flat.device, torch.float32, copy=True)
            zero.optimizer.state[flat] = {"step": counted, **moments}
            lazy_init_hp_params_optimizer_state(weights, flat, zero.optimizer.state)
        for index, own in found.items():
            for key in _MOMENTS:
                safe_set_full_optimizer_state(self._parameters[index], own[key], key)

    @property
    def _zero(self) -> Any:
        return self._engine.optimizer


def _deepspeed(device: torch.device) -> Any:
    if device.type == "cpu":
        # It would look for a GPU's libraries.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise DependencyError(
            f"training.parallel: deepspeed needs DeepSpeed, which cannot be imported: {error}",
            mend="pip install 'fastvla[deepspeed]', or use `parallel: fsdp`",
        ) from error
    # It tells standard output, where results are, of every step that it takes.
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device.type == "cpu":
        # A shared-memory channel of its own would be compiled first; gloo is there already.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
