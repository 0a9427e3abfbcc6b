"""The names of the engines; without torch, so that command lines can list them at once."""

from __future__ import annotations

from typing import Literal, get_args

EngineName = Literal["eager", "compiled", "cuda_graph", "static", "openvino", "onnxruntime"]
EngineChoice = Literal[
    "auto", "eager", "compiled", "cuda_graph", "static", "openvino", "onnxruntime"
]

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
ENGINE_CHOICES: tuple[EngineChoice, ...] = get_args(EngineChoice)
ENGINE_HELP = (
    "how the network is executed: auto (the measured choice for this device where its package is "
    "installed, else eager), eager, compiled, cuda_graph, static, openvino or onnxruntime"
)
