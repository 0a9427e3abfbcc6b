"""openpi's own PyTorch policies as contenders, in an interpreter that has openpi.

Run as a process: `PYTHON -m training.bench.contest.openpi_peer JOB`. Timed is `sample_actions`
without its preparation of images: from images in [-1, 1], token ids, state and noise to normalised
actions, as for everybody else. Its Transformers is 4.53.2 with openpi's own files in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from training.bench.contest.child import Run, serve_inference
from training.bench.contest.job import Batch, Job

_HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
_TABLE = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"


class Given(NamedTuple):
    """What openpi's preparation makes of an observation, in its order."""

    images: list[Tensor]
    image_masks: list[Tensor]
    tokens: Tensor
    token_mask: Tensor
    state: Tensor


def build(job: Job, inputs: list[Batch]) -> Run:
    """The policy that config.json names.

    Options: `compute` is fp32 or bf16, `compile` is openpi's `pytorch_compile_mode`, or "no".
    """
    from openpi.models.pi0_config import Pi0Config
    from openpi.models_pytorch.pi0_pytorch import PI0Pytorch
    from transformers.modeling_utils import no_init_weights  # type: ignore[attr-defined]

    folder, options = Path(job.checkpoint), job.options
    data = json.loads((folder / "config.json").read_text())
    config = Pi0Config(
        dtype="bfloat16" if options["compute"] == "bf16" else "float32",
        paligemma_variant=data["paligemma_variant"],
        action_expert_variant=data["action_expert_variant"],
        action_dim=data["max_action_dim"],
        action_horizon=data["chunk_size"],
        max_token_len=data["tokenizer_max_length"],
        pi05=data["type"] == "pi05",
        pytorch_compile_mode=None if options["compile"] == "no" else options["compile"],
    )
    with torch.device(job.device), no_init_weights():
        model: Any = PI0Pytorch(config)
    load_weights(model, load_file(folder / "model.safetensors"))
    model._preprocess_observation = _as_given
    return _runner(model.to(job.device).eval().requires_grad_(False), data)


def load_weights(model: Any, stored: dict[str, Tensor]) -> None:
    """Give openpi's network what LeRobot's names hold.

    Raises:
        RuntimeError: they are those of another network.
    """
    own = {name.removeprefix("model."): tensor for name, tensor in stored.items()}
    # Head and table are one; only one of the names is stored.
    own.setdefault(_TABLE, own[_HEAD])
    missing, unexpected = model.load_state_dict(own, strict=False)
    # The heads are never read.
    missing = [name for name in missing if not name.endswith("lm_head.weight")]
    unexpected = [name for name in unexpected if not name.endswith("lm_head.weight")]
    if missing or unexpected:
        raise RuntimeError(f"weights do not fit: missing {missing[:3]}, left over {unexpected[:3]}")


def _as_given(observation: Given, *, train: bool) -> Given:
    return observation


def _runner(model: Any, data: dict[str, Any]) -> Run:
    dim = data["output_features"]["action"]["shape"][0]
    steps = data["num_inference_steps"]

    def run(batch: Batch) -> Tensor:
        given = Given(
            images=list(batch["images"].unbind(1)),
            image_masks=list(batch["image_mask"].unbind(1)),
            tokens=batch["tokens"],
            token_mask=batch["token_mask"],
            state=batch["state"],
        )
        noise = batch["noise"]
        return model.sample_actions(noise.device, given, noise=noise, num_steps=steps)[..., :dim]

    return run


if __name__ == "__main__":
    serve_inference(build)
