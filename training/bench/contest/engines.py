"""The engines that execute our network: the one place where the bench meets them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastvla_core.engines.making import make_engine
from fastvla_core.engines.names import ENGINES
from training.bench.contest.job import Batch

__all__ = ["ENGINES", "missing_for", "prepared"]


def missing_for(engine: str, device: str) -> str:
    """Why an engine cannot run on a device, as far as that is known without a network."""
    if engine == "cuda_graph" and device != "cuda":
        return "no GPU"
    onnx = engine.startswith("onnxruntime")
    return "runs on the CPU only" if onnx and device != "cpu" else ""


def prepared(name: Any, model: Any, batch: Batch) -> Callable[[Batch], Tensor]:
    """What runs a request, compiled or captured for the shapes of `batch`.

    Raises:
        FastVLAError: the engine cannot run this network here; says what is missing.
    """
    engine = make_engine(name, model)
    engine.prepare(_without_noise(batch), batch["noise"])
    return lambda batch: engine(_without_noise(batch), batch["noise"])


def _without_noise(batch: Batch) -> Batch:
    return {name: tensor for name, tensor in batch.items() if name != "noise"}
