"""What is raced: a checkpoint and inputs for it; true sizes come with random weights.

Random weights say nothing about a robot. For time, memory and rounding they are as good as any.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastvla_core.errors import FastVLAError
from fastvla_core.layers.norm import RMSNorm
from fastvla_core.models.hub import find_checkpoint
from fastvla_core.models.lerobot.files import NO_LOCAL_FILES
from fastvla_core.models.loading import load_config
from fastvla_core.models.policies.smolvla.vlm import PUBLISHED, SmolVLMSize
from fastvla_core.models.registry import POLICIES
from fastvla_core.models.weightless import weightless
from training.bench.contest.check import Motion
from training.bench.contest.job import Batch, save_inputs

_JOINTS = 7
_SMOLVLM = "SmolVLM2-500M-Video-Instruct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What an inference of a policy with random weights sees and gives.

    Attributes:
        views: Cameras.
        side: Pixels along a side of their images.
        words: Tokens of the prompt, all of them real.
        chunk: Action steps.
        steps: Flow steps.
    """

    views: int
    side: int
    words: int
    chunk: int = 50
    steps: int = 10

    @property
    def text(self) -> str:
        """In words."""
        return (
            f"{self.views} views of {self.side}x{self.side}, {self.words} prompt tokens, chunk "
            f"{self.chunk}, {self.steps} steps"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A checkpoint on the disk, and the batches that every contender gets.

    Attributes:
        name: Of the row in tables: "pi0" or a folder.
        policy_type: "type" of its config.json.
        shape: What an inference sees and gives, in words.
        inputs: File that `job.save_inputs` wrote.
        parameters: How many.
        motion: Makes the robot's motion of normalised actions; None for random weights.
    """

    name: str
    policy_type: str
    shape: str
    checkpoint: Path
    inputs: Path
    parameters: int
    motion: Motion | None = None


SHAPES: Mapping[str, Shape] = {
    "smolvla": Shape(views=2, side=512, words=48),
    "pi0": Shape(views=2, side=224, words=48),
    "pi05": Shape(views=3, side=224, words=200),
}
# SmolVLA's widths in few layers and small images: what a processor measures in a minute.
SMALL = "smolvla-small"
_SMALL_SHAPE = Shape(views=2, side=256, words=48)


def small_size() -> tuple[SmolVLMSize, int]:
    """The sizes behind "smolvla-small", and how many of its language model's layers are used."""
    size = PUBLISHED[_SMOLVLM]
    return dataclasses.replace(size, vision=dataclasses.replace(size.vision, depth=3)), 4


def known_shape(name: str) -> Shape | None:
    """The shape of a policy with random weights; None where `name` is a checkpoint."""
    return _SMALL_SHAPE if name == SMALL else SHAPES.get(name)


def prepare(name: str, folder: Path, *, inputs: int, device: str) -> Workload:
    """Put a policy's checkpoint and its inputs into `folder`.

    Args:
        name: "smolvla", "smolvla-small", "pi0" or "pi05" with random weights; otherwise a shipped
            name or the folder of a checkpoint, which stays where it is.
        inputs: How many.
        device: Where random weights are drawn: a GPU takes seconds.
    Raises:
        CheckpointError: there is no such checkpoint.
        FastVLAError: its network does not turn noise into actions.
    """
    shape = known_shape(name)
    if shape is None:
        return _stored(name, folder, inputs=inputs)
    config, model = random_policy(name, shape, folder, device=device)
    POLICIES.load(config.policy_type).save_weights(folder, model)
    batches = [
        random_batch(config, shape, generator=torch.Generator().manual_seed(seed))
        for seed in range(inputs)
    ]
    path = folder / "inputs.safetensors"
    save_inputs(path, batches)
    return Workload(
        name=name,
        policy_type=config.policy_type,
        shape=f"{shape.text}, random weights",
        checkpoint=folder,
        inputs=path,
        parameters=sum(p.numel() for p in model.parameters()),
    )


def random_policy(name: str, shape: Shape, folder: Path, *, device: str) -> tuple[Any, nn.Module]:
    """Config and network of a policy with random weights, in the type that it is published in.

    Args:
        folder: Where config.json, and the sizes that it refers to, are written.
    """
    data = _smolvla_data(name, shape, folder) if "smolvla" in name else _pi_data(name, shape)
    (folder / "config.json").write_text(json.dumps(data, indent=2))
    family = POLICIES.load(data["type"])
    config = family.config(data, folder=folder, files=NO_LOCAL_FILES)
    with weightless():
        model = family.model(config)
    model = model.to(config.dtype).to_empty(device=device).eval()
    draw_weights(model, generator=torch.Generator(device).manual_seed(0))
    return config, model


def draw_weights(model: nn.Module, *, generator: torch.Generator) -> None:
    """Weights that keep the size of what passes through them; norms as fresh ones."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, RMSNorm):
                parameter.data.fill_(1.0 - module.offset)
            elif isinstance(module, nn.LayerNorm):
                parameter.data.fill_(float(name == "weight"))
            elif parameter.ndim < 2:
                parameter.data.normal_(std=0.02, generator=generator)
            else:
                fan_in = math.prod(parameter.shape[1:])
                parameter.data.normal_(std=fan_in**-0.5, generator=generator)


def random_batch(config: Any, shape: Shape, *, generator: torch.Generator, batch: int = 1) -> Batch:
    """Random pixels, words, state and noise for the network, on the CPU."""

    def integers(low: int, high: int, *size: int) -> Tensor:
        return torch.randint(low, high, size, generator=generator)

    paligemma = getattr(config, "paligemma", None)
    vocabulary = config.vocab_size if paligemma is None else paligemma.vocab_size
    pixels = integers(0, 256, batch, shape.views, 3, shape.side, shape.side)
    return {
        "images": pixels / 127.5 - 1,
        "image_mask": torch.ones(batch, shape.views, dtype=torch.bool),
        "tokens": integers(1, vocabulary, batch, shape.words),
        "token_mask": torch.ones(batch, shape.words, dtype=torch.bool),
        "state": torch.randn(batch, config.max_state_dim, generator=generator),
        "noise": torch.randn(batch, *config.noise_shape, generator=generator),
    }


def _features(shape: Shape) -> dict[str, Any]:
    image = {"type": "VISUAL", "shape": [3, shape.side, shape.side]}
    cameras = {f"observation.images.camera{index}": image for index in range(shape.views)}
    state = {"type": "STATE", "shape": [_JOINTS]}
    return {
        "input_features": {**cameras, "observation.state": state},
        "output_features": {"action": {"type": "ACTION", "shape": [_JOINTS]}},
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
        "chunk_size": shape.chunk,
        "n_action_steps": shape.chunk,
        "tokenizer_max_length": shape.words,
    }


def _pi_data(name: str, shape: Shape) -> dict[str, Any]:
    return {
        "type": name,
        **_features(shape),
        "dtype": "bfloat16",
        "paligemma_variant": "gemma_2b",
        "action_expert_variant": "gemma_300m",
        "image_resolution": [shape.side, shape.side],
        "num_inference_steps": shape.steps,
        "max_state_dim": 32,
        "max_action_dim": 32,
    }


def _smolvla_data(name: str, shape: Shape, folder: Path) -> dict[str, Any]:
    size, layers = small_size() if name == SMALL else (PUBLISHED[_SMOLVLM], 16)
    beside = folder / "vlm"
    beside.mkdir(exist_ok=True)
    (beside / "config.json").write_text(json.dumps(_smolvlm_data(size), indent=2))
    return {
        "type": "smolvla",
        **_features(shape),
        "vlm_model_name": f"HuggingFaceTB/{_SMOLVLM}",
        "resize_imgs_with_padding": [shape.side, shape.side],
        "num_vlm_layers": layers,
        "num_steps": shape.steps,
    }


def _smolvlm_data(size: SmolVLMSize) -> dict[str, Any]:
    """SmolVLM's own config.json, as Transformers reads it."""
    vision, text = size.vision, size.text
    return {
        "model_type": "smolvlm",
        "scale_factor": size.scale_factor,
        "tie_word_embeddings": False,
        "vision_config": {
            "model_type": "smolvlm_vision",
            "hidden_size": vision.width,
            "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.heads,
            "intermediate_size": vision.mlp_width,
            "patch_size": vision.patch,
            "image_size": vision.grid * vision.patch,
            "layer_norm_eps": vision.eps,
            "hidden_act": "gelu_pytorch_tanh",
        },
        "text_config": {
            "model_type": "llama",
            "hidden_size": text.width,
            "num_hidden_layers": text.depth,
            "num_attention_heads": text.attention.heads,
            "num_key_value_heads": text.attention.kv_heads,
            "head_dim": text.attention.head_dim,
            "intermediate_size": text.mlp_width,
            "vocab_size": size.vocab_size,
            "rms_norm_eps": text.eps,
            "hidden_act": "silu",
        },
    }


def _stored(name: str, folder: Path, *, inputs: int) -> Workload:
    checkpoint = find_checkpoint(name)
    family, config = load_config(checkpoint)
    if not hasattr(config, "noise_shape"):
        raise FastVLAError(
            f"{checkpoint} (type {config.to_dict()['type']}) does not turn noise into actions",
            mend="name a policy of type fastvla_flow, smolvla, pi0 or pi05",
        )
    processor = family.load_processor(checkpoint, config)
    observations = _observations(name, processor, inputs)
    batches = []
    for seed, observation in enumerate(observations):
        batch = processor.observation_batch([observation], device=torch.device("cpu"))
        noise = torch.randn(1, *config.noise_shape, generator=torch.Generator().manual_seed(seed))
        batches.append({**batch, "noise": noise})
    # Prompts differ in length, and one file holds them all.
    longest = max(batch["tokens"].shape[1] for batch in batches)
    for batch in batches:
        for key in ("tokens", "token_mask"):
            missing = longest - batch[key].shape[1]
            batch[key] = nn.functional.pad(batch[key], (0, missing))
    path = folder / "inputs.safetensors"
    save_inputs(path, batches)
    with weightless():
        parameters = sum(p.numel() for p in family.model(config).parameters())
    views, _, height, width = batches[0]["images"].shape[1:]
    chunk, _ = config.noise_shape
    steps = getattr(config, "flow_steps", None) or config.num_inference_steps
    return Workload(
        name=name,
        policy_type=config.to_dict()["type"],
        shape=f"{views} views of {width}x{height}, {longest} prompt tokens, chunk {chunk}, "
        f"{steps} steps",
        checkpoint=checkpoint,
        inputs=path,
        parameters=parameters,
        motion=lambda actions: _motion(processor, actions, observations),
    )


def _motion(processor: Any, actions_nta: Tensor, observations: list[Any]) -> Tensor:
    """Targets minus the present state, where there is one of as many values."""
    targets = torch.from_numpy(processor.targets(actions_nta, observations))
    state = torch.from_numpy(np.stack([o.state for o in observations])).to(targets.dtype)
    return targets - state[:, None] if state.shape[-1] == targets.shape[-1] else targets


def _observations(name: str, processor: Any, count: int) -> list[Any]:
    if name != "nano":
        return [processor.random_observation(seed) for seed in range(count)]
    from training.bench.scenes import simulator_observations

    return simulator_observations(count, cameras=processor.config.cameras)
