"""What a recipe will need on a GPU, without a GPU and without weights: the network is only planned.

Its tensors are fake: they have shapes, types and a life, and no memory. The passes of one part of a
batch run on them, and what is alive at most is counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastvla_core.errors import DatasetError
from fastvla_core.models.adapters import add_adapters
from fastvla_core.models.loading import load_config
from fastvla_core.models.lora import LoraConfig
from fastvla_core.models.policies.flow_vla.config import FlowVLAConfig
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.models.registry import POLICIES
from fastvla_core.models.weightless import weightless
from fastvla_core.policy import policy_config
from fastvla_core.quant import Int8Linear, quantizable_layers
from fastvla_core.resources import share_roots
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot_adaptation import adapted_data, is_adaptable
from training.insulation import Insulated, action_tokenizer
from training.learning_options import InsulationTraining
from training.live_memory import training_peak
from training.memory import MemoryEstimate, counted, gigabytes
from training.optimization import recompute_activations
from training.processes import Processes, rows_of
from training.published import PUBLISHED
from training.recipe import Recipe, TrainConfig
from training.starting_policy import with_options

# NF4 holds 4 bits per weight and a float32 scale for 64 of them; 8-bit codes stand for it here.
_NF4_OF_INT8 = 0.5 + 4 / 64
_QLORA = LoraConfig(rank=16, modules=("*",), quantization="nf4")


def plan_memory(recipe: Recipe, *, processes: int = 1) -> MemoryEstimate:
    """What one process of a run will need on its device.

    Args:
        processes: That train together.
    Raises:
        DatasetError: the recipe's policy is of a type, or at a place, that cannot be planned, or
            its batch cannot be shared out.
        CheckpointError: its files are damaged, or no layer is there to adapt.
    """
    config, family = _sizes(recipe)
    training = recipe.training
    share = Processes(count=processes)
    rows = rows_of(share, batch_size=training.batch_size, parts=training.accumulate)
    part = len(rows) // training.accumulate
    with weightless():
        model: nn.Module = family.model(config).train()
        packed = 0 if training.lora is None else _add_planned_adapters(model, training.lora)
        learner = model
        if training.insulation is not None:
            learner = _insulated(model, training.insulation)
    if training.activations == "recompute":
        recompute_activations(model)
    with FakeTensorMode():
        _give_fake_tensors(learner)
        activations = 0
        if isinstance(model, FlowVLA):
            # It leaves out the images that a mask hides: with fake tensors nobody knows which.
            model.prefix.training = False
        if training.activations != "offload":
            activations = _planned_peak(learner, _batch(config, part, training), training)
        estimate = counted(
            learner, config=training, part=part, activations=activations, processes=processes
        )
    if training.parallel == "fsdp":
        packed //= processes
    return dataclasses.replace(estimate, weights=estimate.weights - packed)


def _insulated(model: nn.Module, options: InsulationTraining) -> Insulated:
    # A head for FAST tokens is as wide as they are many.
    needs = options.tokens == "fast" and isinstance(model, FlowVLA)
    fast = action_tokenizer(options) if needs else None
    return Insulated(model, options, seed=0, fast=fast)


def require_planned(
    recipe: Recipe, estimate: MemoryEstimate, *, gpu_gb: float, processes: int = 1
) -> None:
    """See that a run fits a GPU, or each of its processes one of its own.

    Raises:
        DatasetError: it does not; names the first change that does, itself planned.
    """
    if estimate.total <= gpu_gb * 1e9:
        return
    for changed, said in _smaller(recipe, processes):
        total = plan_memory(changed, processes=processes).total
        if total <= gpu_gb * 1e9:
            mend = f"set {said} in the recipe's `training`: {gigabytes(total)}"
            break
    else:
        mend = "use a smaller policy or a larger GPU"
    raise DatasetError(
        f"recipe '{recipe.name}' needs about {estimate.in_words()}, the GPU has {gpu_gb:g} GB",
        mend=mend,
    )


def _smaller(recipe: Recipe, processes: int) -> Iterator[tuple[Recipe, str]]:
    """Recipes that need less and less, with what was changed."""
    said: list[str] = []
    training = recipe.training

    def changed(what: str, **fields: Any) -> tuple[Recipe, str]:
        nonlocal training
        training = dataclasses.replace(training, **fields)
        said.append(what)
        return dataclasses.replace(recipe, training=training), " and ".join(said)

    if processes > 1 and training.parallel == "ddp" and training.optimizer == "adamw":
        yield changed("`parallel: fsdp`", parallel="fsdp")
    if training.activations == "keep":
        yield changed("`activations: recompute`", activations="recompute")
    if training.optimizer == "adamw" and training.parallel == "ddp":
        yield changed("`optimizer: adamw_8bit`", optimizer="adamw_8bit")
    if training.accumulate * processes < training.batch_size:
        parts = training.batch_size // processes
        yield changed(f"`accumulate: {parts}`", accumulate=parts)
    if training.lora is None or training.lora.quantization is None:
        yield changed("`lora: {rank: 16, quantization: nf4}`", lora=_QLORA)


def _sizes(recipe: Recipe) -> tuple[Any, Any]:
    """Config and family of the recipe's policy, for its robot."""
    contract = load_contract(recipe.contract)
    if recipe.new:
        config = with_options(policy_config(recipe.policy, contract=contract), recipe)
        return _planned(config, recipe), POLICIES.load(config.policy_type)
    folder = _local_folder(recipe.policy)
    if folder is not None:
        family, config = load_config(folder)
        raw = getattr(config, "raw", {})
    elif recipe.policy in PUBLISHED:
        raw = PUBLISHED[recipe.policy]
        family = POLICIES.load(raw["type"])
    else:
        raise DatasetError(
            f"recipe '{recipe.name}': the sizes of '{recipe.policy}' are not known here",
            mend="give the folder of the checkpoint, or start the run: it measures before it "
            f"trains; known without a folder: {', '.join(PUBLISHED)}",
        )
    if folder is not None and not is_adaptable(config):
        return _planned(config, recipe), family
    with tempfile.TemporaryDirectory() as empty:
        place = folder or Path(empty)
        config = family.planned_config(adapted_data(raw, contract), folder=place)
    return _planned(config, recipe), family


def _planned(config: Any, recipe: Recipe) -> Any:
    if isinstance(config, FlowVLAConfig) or getattr(config, "fits_any_robot", False):
        return config
    raise DatasetError(
        f"recipe '{recipe.name}': memory is not planned for policies like {recipe.policy}",
        mend="start the run: it measures before it trains, and refuses what cannot fit",
    )


def _local_folder(policy: str) -> Path | None:
    places = (Path(policy), *(root / "config/policies" / policy for root in share_roots()))
    return next((place for place in places if (place / "config.json").is_file()), None)


def _add_planned_adapters(model: nn.Module, lora: LoraConfig) -> int:
    """Adapters on layers that are packed in shape only; returns what NF4 takes less than 8 bits."""
    packed: dict[str, nn.Linear] = {}
    if lora.quantization is not None:
        skip = getattr(model, "full_precision", ())
        packed = quantizable_layers(model, skip=(*skip, *lora.whole))
    less = 0.0
    for name, layer in packed.items():
        model.set_submodule(name, Int8Linear.blank(layer))
        if lora.quantization == "nf4":
            less += (1 - _NF4_OF_INT8) * layer.weight.numel()
    add_adapters(model, dataclasses.replace(lora, quantization=None))
    return round(less)


def _give_fake_tensors(model: nn.Module) -> None:
    """Fake tensors on a CPU for those on "meta", which autocast does not know."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for name, own in module.named_parameters(recurse=False, remove_duplicate=False):
            if id(own) not in made:
                fake = torch.empty(own.shape, dtype=own.dtype)
                made[id(own)] = nn.Parameter(fake, requires_grad=own.requires_grad)
            setattr(module, name, made[id(own)])
        for name, own in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(own.shape, dtype=own.dtype))


def _batch(config: Any, part: int, training: TrainConfig) -> dict[str, Tensor]:
    """One part of a batch, in shapes; prompts and tokens of actions as long as they can get."""
    if isinstance(config, FlowVLAConfig):
        cameras, state = len(config.cameras), len(config.state_names)
        action = len(config.action_names)
    else:
        cameras = len(config.features.cameras)
        # What reads and writes them as words has no width for them.
        state, action = (getattr(config, f"max_{kind}_dim", 0) for kind in ("state", "action"))
    words = (part, config.tokenizer_max_length)
    batch = {
        "images": torch.zeros(part, cameras, 3, *config.image_resolution),
        "image_mask": torch.ones(part, cameras, dtype=torch.bool),
        "tokens": torch.ones(words, dtype=torch.int64),
        "token_mask": torch.ones(words, dtype=torch.bool),
        "state": torch.zeros(part, state),
        "action": torch.zeros(part, config.chunk_size, action),
    }
    if tokens := _action_tokens(config, training):
        batch["action_tokens"] = torch.ones(part, tokens, dtype=torch.int64)
        batch["action_token_mask"] = torch.ones(part, tokens, dtype=torch.bool)
    return batch


def _action_tokens(config: Any, training: TrainConfig) -> int:
    insulation = training.insulation
    if insulation is not None and insulation.tokens == "fast":
        return insulation.max_tokens
    return getattr(config, "max_action_tokens", 0)


def _planned_peak(learner: Any, batch: Mapping[str, Tensor], training: TrainConfig) -> int:
    def loss() -> Tensor:
        with _halved(training):
            return learner.loss(batch, generator=torch.Generator().manual_seed(0))["loss"]

    return training_peak(learner, loss, batch.values())


def _halved(training: TrainConfig) -> contextlib.AbstractContextManager[Any]:
    # Half precision takes the same memory in either format, and on a CPU bf16 is the usual one.
    return torch.autocast("cpu", torch.bfloat16, enabled=training.precision != "fp32")
