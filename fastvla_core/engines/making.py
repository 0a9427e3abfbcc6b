"""Which engines can run a network here, and making one."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastvla_core.engines.interface import Engine, FlowRequest
from fastvla_core.engines.names import ENGINES, EngineChoice, EngineName
from fastvla_core.engines.plain import PlainEngine
from fastvla_core.errors import DependencyError, FastVLAError, PolicyError

_ONNX_PACKAGES = ("onnxruntime", "onnx", "onnxscript")


def make_engine(choice: EngineChoice, model: Any) -> Engine:
    """An engine for a network, on the device of its weights.

    Args:
        choice: "auto" takes the measured choice for the device where its package is installed.
        model: The network of any policy; its weights must not change from now on.
    Raises:
        DependencyError: a package, a compiler or a GPU is missing; says which.
        PolicyError: the network cannot run on this engine.
    """
    name = automatic(model) if choice == "auto" else choice
    if (obstacle := obstacles(model)[name]) is not None:
        raise obstacle
    if name == "compiled":
        model.compile_parts()
    if name in ("eager", "compiled"):
        return PlainEngine(model, name=name)
    if name in ("onnxruntime", "onnxruntime_int8"):
        from fastvla_core.engines.onnx import Int8OnnxEngine, OnnxEngine

        return OnnxEngine(model) if name == "onnxruntime" else Int8OnnxEngine(model)
    from fastvla_core.engines import static

    if name == "static":
        return static.static_engine(model)
    return static.cuda_graph_engine(model, _device(model))


def uploads(engine: Engine, device: torch.device) -> Callable[[str, Tensor], Tensor] | None:
    """How camera images come to the device of an engine; None for a plain copy."""
    if engine.name != "cuda_graph":
        return None
    from fastvla_core.engines.uploads import PinnedUploads

    return PinnedUploads(device)


def automatic(model: Any) -> EngineName:
    """The engine that "auto" stands for: eager, unless another was measured to be faster here.

    On a CPU that is ONNX Runtime, but only where the network was converted before, by loading it
    with that engine once: a robot that starts must not wait for a conversion that nobody asked for.
    Never its products in 8 bits: what they do to a policy's actions is for its user to check.
    On a GPU nothing was measured yet.
    """
    if _device(model).type != "cpu" or _obstacle("onnxruntime", model) is not None:
        return "eager"
    from fastvla_core.engines.onnx import is_kept

    return "onnxruntime" if is_kept(model) else "eager"


def obstacles(model: Any) -> dict[EngineName, FastVLAError | None]:
    """For each engine what keeps it from running this network here; None where nothing does."""
    return {name: _obstacle(name, model) for name in ENGINES}


def _obstacle(name: EngineName, model: Any) -> FastVLAError | None:
    if name == "eager":
        return None
    device = _device(model)
    if name == "compiled":
        return _no_compiler(device)
    if not isinstance(model, FlowRequest):
        return PolicyError(
            f"engine {name} runs flow policies (fastvla_flow, smolvla, pi0, pi05), not "
            f"{type(model).__name__}",
            mend="use the engine eager or compiled",
        )
    if name == "cuda_graph" and device.type != "cuda":
        return DependencyError(
            f"engine cuda_graph needs a CUDA device, and the policy is on {device}",
            mend="load the policy with device cuda, or use another engine",
        )
    return _no_onnx(name, model) if name in ("onnxruntime", "onnxruntime_int8") else None


def _no_compiler(device: torch.device) -> FastVLAError | None:
    if device.type != "cpu" or any(map(shutil.which, ("c++", "g++", "clang++"))):
        return None
    return DependencyError(
        "engine compiled needs a C++ compiler for the CPU, and there is none",
        mend="install g++, or use another engine",
    )


def _no_onnx(name: EngineName, model: Any) -> FastVLAError | None:
    device = _device(model)
    if device.type != "cpu":
        return PolicyError(
            f"engine {name} runs on the CPU, and the policy is on {device}",
            mend="load the policy with device cpu, or use another engine",
        )
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if kinds != {torch.float32}:
        return PolicyError(
            f"engine {name} starts from float32, and weights are {', '.join(map(str, kinds))}",
            mend="load the policy with dtype=torch.float32, or use another engine",
        )
    missing = [p for p in _ONNX_PACKAGES if importlib.util.find_spec(p) is None]
    if missing:
        return DependencyError(
            f"engine {name} needs the package {missing[0]}, which is not installed",
            mend="pip install 'fastvla[onnx]', or use another engine",
        )
    return None


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device
