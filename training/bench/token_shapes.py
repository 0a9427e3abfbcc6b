"""Visual token pruning and caches on shapes of large policies, with random weights.

Random weights choose tokens at random; what is measured is time alone. Each variant sees the same
frames in the same order, one each in turn, so that drift hits all alike.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fastvla_core.models.lerobot.files import NO_LOCAL_FILES
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.models.policies.flow_vla.presets import large_config
from fastvla_core.models.policies.smolvla.family import SmolVLAFamily
from fastvla_core.models.vision_tokens.memory import TokenMemory
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.models.weightless import weightless
from training.bench.stopwatch import Stopwatch
from training.optimization import multiplies_bf16

Scene = Literal["both cameras move", "one camera still", "both cameras still"]
_CAMERAS, _JOINTS, _WORDS = ("front", "wrist"), 7, 20
# A first look at all tokens and whatever is prepared once are not what an inference costs.
_WARM_UP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeTiming:
    """Median times of one chunk [ms].

    Attributes:
        cpu_ms: Of the processor, all threads together: what other programs do hardly shows in it.
        saved: Share of the plain variant's `cpu_ms`.
    """

    variant: str
    scene: Scene
    p50_ms: float
    cpu_ms: float
    saved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """A network with random weights, and random observations for it."""

    model: Any
    height: int
    width: int
    words: int
    state: int
    vocabulary: int


def smolvla_shapes() -> Shapes:
    """SmolVLA on SmolVLM2-500M: two cameras of 512 x 512, 50 action steps, ten flow steps."""
    image = {"type": "VISUAL", "shape": [3, 512, 512]}
    vector = {"type": "STATE", "shape": [_JOINTS]}
    data = {
        "type": "smolvla",
        "input_features": {
            **{f"observation.images.{name}": image for name in _CAMERAS},
            "observation.state": vector,
        },
        "output_features": {"action": {**vector, "type": "ACTION"}},
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
        "vlm_model_name": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        "chunk_size": 50,
        "n_action_steps": 50,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = SmolVLAFamily.config(data, folder=Path(folder), files=NO_LOCAL_FILES)
    model = _with_random_weights(lambda: SmolVLAFamily.model(config))
    return Shapes(model=model, height=512, width=512, words=48, state=32, vocabulary=49_280)


def large_shapes() -> Shapes:
    """The preset "large", in the proportions of pi0: two cameras of 224 x 224, 256 tokens each."""
    names = tuple(f"joint{index}" for index in range(_JOINTS))
    config = large_config(
        cameras=_CAMERAS, state_names=names, action_names=names, relative_exclude_joints=()
    )
    model = _with_random_weights(lambda: FlowVLA(config))
    return Shapes(model=model, height=224, width=224, words=48, state=_JOINTS, vocabulary=32_768)


def shape_variants() -> Iterator[tuple[str, VisionTokens, Scene]]:
    """What is measured; the first is the plain one."""
    moving: Scene = "both cameras move"
    yield "all tokens", VisionTokens(), moving
    for keep in (0.5, 0.375, 0.25):
        yield f"adaptive {keep:g}", VisionTokens(pruning="adaptive", keep=keep), moving
    for keep in (0.5, 0.25):
        yield f"uniform {keep:g}", VisionTokens(pruning="uniform", keep=keep), moving
        yield f"pool {keep:g}", VisionTokens(pruning="pool", keep=keep), moving
    cameras, both = (VisionTokens(camera_reuse=0.0, prefix_reuse=p) for p in (False, True))
    yield "camera reuse", cameras, "one camera still"
    yield "camera reuse", cameras, "both cameras still"
    yield "camera and prefix reuse", both, "both cameras still"
    yield "camera and prefix reuse", both, moving


def time_shapes(shapes: Shapes, *, rounds: int) -> list[ShapeTiming]:
    """Median time of one chunk per variant over `rounds` frames, in turn."""
    variants = list(shape_variants())
    memories = [TokenMemory() for _ in variants]
    taken = [Stopwatch() for _ in variants]
    frames = {scene: _frames(shapes, scene) for _, _, scene in variants}
    noise = torch.randn((1, *shapes.model.config.noise_shape), generator=_generator(1))
    for index in range(-_WARM_UP, rounds):
        batches = {scene: next(batch) for scene, batch in frames.items()}
        for (_, tokens, scene), memory, watch in zip(variants, memories, taken):
            shapes.model.vision_tokens = tokens
            used = memory if tokens.remembers else None
            with torch.inference_mode(), watch.lap(counted=index >= 0):
                shapes.model(batches[scene], noise, memory=used)
    plain = taken[0].cpu_ms
    return [
        ShapeTiming(
            variant=name,
            scene=scene,
            p50_ms=watch.p50_ms,
            cpu_ms=watch.cpu_ms,
            saved=1 - watch.cpu_ms / plain,
        )
        for (name, _, scene), watch in zip(variants, taken)
    ]


def shape_line(row: ShapeTiming) -> str:
    """A row as text."""
    times = f"{row.p50_ms:9.1f} ms, {row.cpu_ms:9.1f} ms of the processor"
    return f"  {row.variant:26} {times}, {row.saved:+6.1%} saved  {row.scene}"


def _frames(shapes: Shapes, scene: Scene) -> Iterator[Mapping[str, Tensor]]:
    """Noise on which a square moves on, in as many cameras as the scene says."""
    generator = _generator(0)
    moving = {"both cameras move": 2, "one camera still": 1, "both cameras still": 0}[scene]
    size = (1, len(_CAMERAS), 3, shapes.height, shapes.width)
    still = torch.rand(size, generator=generator) * 2 - 1
    side = shapes.height // 4
    common = {
        "image_mask": torch.ones(1, len(_CAMERAS), dtype=torch.bool),
        "tokens": torch.randint(1, shapes.vocabulary, (1, shapes.words), generator=generator),
        "token_mask": (torch.arange(shapes.words) < _WORDS)[None],
    }
    for step in itertools.count():
        images = still.clone()
        left = step * 16 % (shapes.width - side)
        images[:, :moving, :, side : 2 * side, left : left + side] = 0.5
        yield {
            **common,
            "images": images,
            "state": torch.randn((1, shapes.state), generator=generator),
        }


def _with_random_weights(build: Callable[[], Any]) -> Any:
    """The network, in bfloat16 where the processor multiplies it; norms are one, the rest noise."""
    with weightless():
        model = build()
    dtype = torch.bfloat16 if multiplies_bf16(torch.device("cpu")) else torch.float32
    model = model.to(dtype).to_empty(device="cpu").eval()
    generator = _generator(2)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.fill_(1.0)
        else:
            parameter.data.normal_(std=0.02, generator=generator)
    return model


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
