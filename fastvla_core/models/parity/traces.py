"""Every intermediate value of a policy on a stored case, under the names of the stored tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastvla_core.layers.attention import KeyValue
from fastvla_core.models.backbones.decoder import Decoder
from fastvla_core.models.heads.flow_expert import FlowExpertModel
from fastvla_core.models.heads.flow_parts import PrefixTokens
from fastvla_core.models.lerobot.processor import LeRobotProcessor
from fastvla_core.models.lerobot.transition import run_steps
from fastvla_core.models.parity.cases import Case
from fastvla_core.models.parity.visuomotor_traces import act_trace, diffusion_trace
from fastvla_core.models.policies.act.model import Act
from fastvla_core.models.policies.diffusion.model import Diffusion
from fastvla_core.models.policies.flow_vla import flow
from fastvla_core.models.policies.pi0_fast.model import PaliGemmaContinuation, Pi0Fast

Batch = Mapping[str, Tensor]
_FIRST_STEPS = 6


def trace(model: Any, processor: LeRobotProcessor, case: Case) -> dict[str, Tensor]:
    """What the policy computes on a case."""
    batch = processor.model_batch(case.transition, device=torch.device("cpu"))
    found = _processed(processor, case, batch)
    found |= _flow(model, batch, case) if isinstance(model, FlowExpertModel) else {}
    found |= _tokens(model, batch) if isinstance(model, Pi0Fast) else {}
    found |= act_trace(model, batch, case) if isinstance(model, Act) else {}
    found |= diffusion_trace(model, batch, case) if isinstance(model, Diffusion) else {}
    actions = processor.actions(found.pop("output"))
    found["out/actions_normalized"] = actions
    state = case.tensors["raw/observation.state"]
    found["out/actions"] = processor.absolute_actions(actions, state)
    return found


def _processed(processor: LeRobotProcessor, case: Case, batch: Batch) -> dict[str, Tensor]:
    ready = run_steps(processor.before, case.transition)
    values = {
        "pre/observation.state": ready.state,
        "pre/observation.language.tokens": ready.tokens,
        "pre/observation.language.attention_mask": ready.token_mask,
        "pre_train/action": ready.action,
        "pre_train/action_tokens": ready.action_tokens,
        "pre_train/action_token_mask": ready.action_token_mask,
        "model/state_padded": batch.get("state"),
    }
    found = {name: value for name, value in values.items() if value is not None}
    if "images" not in batch:
        return found
    for index in range(batch["images"].shape[1]):
        found[f"model/image_{index}"] = batch["images"][:, index]
        found[f"model/image_mask_{index}"] = batch["image_mask"][:, index]
    return found


def _flow(model: FlowExpertModel, batch: Batch, case: Case) -> dict[str, Tensor]:
    tokens = model.prefix_tokens(batch)
    prefix = model.read_prefix(tokens)
    found = _vision(model, batch) | _prefix(model.language_model, tokens, prefix.layers)
    noise = case.tensors["raw/noise"]
    start = torch.ones(len(noise))
    suffix = model.suffix_tokens(noise, start, batch)
    found |= {
        "mid/suffix_embs_step0": suffix.x_bsd,
        "mid/suffix_att_2d": suffix.allowed(prefix).dense[:, 0],
        "mid/suffix_position_ids": suffix.positions_bs(prefix),
        # The reference keeps the actions only.
        "mid/suffix_out_step0": _like(
            model.read_suffix(suffix, prefix), case.tensors.get("mid/suffix_out_step0")
        ),
    }
    if suffix.condition_bd is not None:
        found["mid/adarms_cond_step0"] = suffix.condition_bd
    points: list[tuple[Tensor, Tensor, Tensor]] = []
    field = model.velocity_field(prefix, batch)

    def recorded(x_bta: Tensor, time: float | Tensor) -> Tensor:
        speed = field(x_bta, time)
        points.append((x_bta, torch.full((len(x_bta),), float(time)), speed))
        return speed

    found["out/actions_model_padded"] = flow.integrate(
        recorded, noise, steps=model.config.flow_steps
    )
    for name, values in zip(("x_t", "timesteps", "v_t"), zip(*points)):
        found[f"mid/{name}"] = torch.stack(values)
    found["output"] = model(batch, noise)
    return found | _flow_loss(model, batch, case)


def _flow_loss(model: FlowExpertModel, batch: Batch, case: Case) -> dict[str, Tensor]:
    if "raw/train_noise" not in case.tensors:
        return {}
    errors = model.errors(batch, case.tensors["raw/train_noise"], case.tensors["raw/train_time"])
    loss, per_sample = model.mean_errors(errors, None)
    found = {
        "train/losses_elementwise_padded": errors,
        "train/loss": loss[None],
        "train/loss_per_sample": per_sample,
    }
    if "raw/action_is_pad" in case.tensors:
        loss, per_sample = model.mean_errors(errors, case.tensors["raw/action_is_pad"])
        found["train/loss_with_action_is_pad"] = loss[None]
        found["train/loss_per_sample_with_action_is_pad"] = per_sample
    return found


def _tokens(model: Pi0Fast, batch: Batch) -> dict[str, Tensor]:
    prompt = model.prompt(batch)
    continuation = PaliGemmaContinuation(model, prompt)
    found = _vision(model, batch) | _prefix(model.language_model, prompt, continuation.past)
    found["mid/prefill_logits"] = continuation.logits_bv
    output = model(batch)
    logits = [continuation.logits_bv]
    for step in range(min(_FIRST_STEPS, output.shape[1]) - 1):
        logits.append(continuation.read(output[:, step : step + 1])[:, -1])
    found |= {
        "mid/logits_first6_steps": torch.stack(logits, dim=1),
        "out/generated_token_ids": output,
        "output": output,
    }
    if "action_tokens" in batch:
        found["train/loss"] = model.loss(batch)["loss"][None]
    return found


def _vision(model: Any, batch: Batch) -> dict[str, Tensor]:
    images = batch["images"]
    tokens = model.image_tokens(images)
    found = {f"mid/image_emb_{index}": tokens[:, index] for index in range(images.shape[1])}
    return {**found, "mid/vision_tower_out_0": model.vision_tower(images[:, 0])}


def _prefix(
    language: Decoder, tokens: PrefixTokens, layers: tuple[KeyValue, ...]
) -> dict[str, Tensor]:
    output, _ = language(tokens.x_bpw, tokens.positions_bp, tokens.allowed)
    found = {
        "mid/prefix_embs": tokens.x_bpw,
        "mid/prefix_pad_mask": tokens.mask_bp,
        "mid/prefix_att_2d": tokens.allowed.dense[:, 0],
        "mid/prefix_position_ids": tokens.positions_bp,
        "mid/prefix_out": output,
    }
    for index, layer in enumerate(layers):
        found[f"mid/prefix_k_layer{index}"] = layer.key_bgsd
        found[f"mid/prefix_v_layer{index}"] = layer.value_bgsd
    return found


def _like(output: Tensor, stored: Tensor | None) -> Tensor:
    return output if stored is None else output[:, -stored.shape[1] :]
