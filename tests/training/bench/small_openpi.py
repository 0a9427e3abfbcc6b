"""openpi's policies in the sizes of a small checkpoint: run as a process by `test_openpi_peer`.

openpi knows the published sizes only. Here its size table and its PaliGemma give those that
architecture.json names; its code is not touched.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from training.bench.contest import openpi_peer
from training.bench.contest.child import Run, serve_inference
from training.bench.contest.job import Batch, Job

_KEYS = ("width", "depth", "mlp_dim", "num_heads", "num_kv_heads", "head_dim")
# What openpi writes for every PaliGemma.
_VOCABULARY = 257_152


def build(job: Job, inputs: list[Batch]) -> Run:
    sizes = json.loads((Path(job.checkpoint) / "architecture.json").read_text())
    _use_sizes(sizes)
    load = openpi_peer.load_weights
    openpi_peer.load_weights = lambda model, stored: load(model, _with_all_words(stored))
    return openpi_peer.build(job, inputs)


def _use_sizes(sizes: dict[str, Any]) -> None:
    from openpi.models import gemma
    from openpi.models_pytorch import gemma_pytorch

    parts = {"gemma_2b": sizes["paligemma_text"], "gemma_300m": sizes["action_expert"]}
    gemma.get_config = lambda variant: gemma.Config(**{k: parts[variant][k] for k in _KEYS})
    whole = gemma_pytorch.PaliGemmaForConditionalGeneration

    def small(*, config: Any) -> Any:
        for name, value in sizes["vision"].items():
            setattr(config.vision_config, name, value)
        config.vision_config.projection_dim = sizes["paligemma_text"]["width"]
        return whole(config=config)

    gemma_pytorch.PaliGemmaForConditionalGeneration = small


def _with_all_words(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: functional.pad(tensor, (0, 0, 0, _VOCABULARY - len(tensor)))
        if name.endswith("paligemma.lm_head.weight")
        else tensor
        for name, tensor in stored.items()
    }


if __name__ == "__main__":
    serve_inference(build)
