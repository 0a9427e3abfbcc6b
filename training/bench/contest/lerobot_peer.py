"""LeRobot's own policies as contenders, in an interpreter that has LeRobot.

Run as a process: `PYTHON -m training.bench.contest.lerobot_peer JOB`. Timed is `sample_actions`:
from images in [-1, 1], token ids, state and noise to normalised actions, as for everybody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from training.bench.contest.child import Run, serve_inference
from training.bench.contest.job import Batch, Job

_DRAWS = ("normal_", "trunc_normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_")


def build(job: Job, inputs: list[Batch]) -> Run:
    """The policy that config.json names.

    Options: `compute` is fp32 or bf16, `compile` is "yes" for LeRobot's own `compile_model`.
    """
    from lerobot.configs.policies import PreTrainedConfig

    folder, options = Path(job.checkpoint), job.options
    data = json.loads((folder / "config.json").read_text())
    # First: importing a policy makes its type known to the reader of config.json.
    policy_class = _policy_class(data["type"])
    bf16 = options["compute"] == "bf16"
    config: Any = PreTrainedConfig.from_pretrained(folder)
    config.device = job.device
    config.compile_model = options["compile"] == "yes"
    if data["type"] == "smolvla":
        config.vlm_model_name = str(folder / "vlm")
        config.load_vlm_weights = False
    else:
        config.dtype = "bfloat16" if bf16 else "float32"
    with torch.device(job.device), _no_draws():
        policy = policy_class(config)
    _load_weights(policy, folder)
    if data["type"] == "smolvla" and bf16:
        # As it comes from the Hub: SmolVLM in bf16; the expert follows, the small layers do not.
        policy.model.vlm_with_expert.to(torch.bfloat16)
    policy = policy.to(job.device).eval().requires_grad_(False)
    return _runner(policy, data)


def _policy_class(kind: str) -> Any:
    if kind == "smolvla":
        from lerobot.policies.smolvla import modeling_smolvla, smolvlm_with_expert

        # The tokenizer is not used: token ids come in. Two of its numbers are asked for.
        ids = SimpleNamespace(fake_image_token_id=0, global_image_token_id=0)
        processor = SimpleNamespace(tokenizer=ids)
        smolvlm_with_expert.AutoProcessor = SimpleNamespace(from_pretrained=lambda _: processor)
        return modeling_smolvla.SmolVLAPolicy
    if kind == "pi0":
        from lerobot.policies.pi0.modeling_pi0 import PI0Policy

        return PI0Policy
    from lerobot.policies.pi05.modeling_pi05 import PI05Policy

    return PI05Policy


def _load_weights(policy: Any, folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    wanted = policy.state_dict()
    # Transformers 5.6 dropped a level of SigLIP's names inside PaliGemma.
    own = {
        name if name in wanted else name.replace(".vision_model.", "."): tensor
        for name, tensor in stored.items()
    }
    missing, unexpected = policy.load_state_dict(own, strict=False)
    # A head is tied to its embedding, or never read.
    missing = [name for name in missing if "lm_head" not in name and "embed_tokens" not in name]
    if missing or unexpected:
        raise RuntimeError(f"weights do not fit: missing {missing[:3]}, left over {unexpected[:3]}")


def _runner(policy: Any, data: dict[str, Any]) -> Run:
    dim = data["output_features"]["action"]["shape"][0]
    sample, reads_state = policy.model.sample_actions, data["type"] != "pi05"

    def run(batch: Batch) -> Tensor:
        images = list(batch["images"].unbind(1))
        masks = list(batch["image_mask"].unbind(1))
        state = (batch["state"],) if reads_state else ()
        given = (images, masks, batch["tokens"], batch["token_mask"], *state)
        return sample(*given, noise=batch["noise"])[..., :dim]

    return run


@contextmanager
def _no_draws() -> Iterator[None]:
    """Leave fresh weights as they are: the checkpoint's come instead."""
    kept = {name: getattr(torch.nn.init, name) for name in _DRAWS}
    for name in _DRAWS:
        setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
    try:
        yield
    finally:
        for name, draw in kept.items():
            setattr(torch.nn.init, name, draw)


if __name__ == "__main__":
    serve_inference(build)
