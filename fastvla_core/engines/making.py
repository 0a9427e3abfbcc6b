"""Which engines can run a network here, and making one."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any

import torch

from fastvla_core.engines.interface import Engine, FlowRequest
from fastvla_core.engines.names import ENGINES, EngineChoice, EngineName
from fastvla_core.engines.plain import PlainEngine
from fastvla_core.errors import DependencyError, FastVLAError, PolicyError

_PACKAGES: dict[EngineName, str] = {"openvino": "openvino", "onnxruntime": "onnx"}


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
    if name == "openvino":
        from fastvla_core.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model)
    if name == "onnxruntime":
        from fastvla_core.engines.onnx import OnnxEngine

        return OnnxEngine(model)
    from fastvla_core.engines import static

    if name == "static":
        return static.static_engine(model)
    return static.cuda_graph_engine(model, _device(model))


def automatic(model: Any) -> EngineName:
    """The engine that "auto" stands for: eager, unless another was measured to be faster here."""
    return "eager"


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
    package = _PACKAGES.get(name)
    if package is not None:
        return _no_package(name, package, device)
    return None


def _no_compiler(device: torch.device) -> FastVLAError | None:
    if device.type != "cpu" or any(map(shutil.which, ("c++", "g++", "clang++"))):
        return None
    return DependencyError(
        "engine compiled needs a C++ compiler for the CPU, and there is none",
        mend="install g++, or use another engine",
    )


def _no_package(name: EngineName, package: str, device: torch.device) -> FastVLAError | None:
    if device.type != "cpu":
        return PolicyError(
            f"engine {name} runs on the CPU, and the policy is on {device}",
            mend="load the policy with device cpu, or use another engine",
        )
    if importlib.util.find_spec(name) is None:
        return DependencyError(
            f"engine {name} needs a package that is not installed",
            mend=f"pip install 'fastvla[{package}]', or use another engine",
        )
    return None


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device
