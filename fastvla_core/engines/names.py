"""The names of the engines; without torch, so that command lines can list them at once."""

from __future__ import annotations

from typing import Literal, get_args

EngineName = Literal["eager", "compiled", "cuda_graph", "static", "onnxruntime", "onnxruntime_int8"]
EngineChoice = Literal[
    "auto", "eager", "compiled", "cuda_graph", "static", "onnxruntime", "onnxruntime_int8"
]  # fmt: skip

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
ENGINE_CHOICES: tuple[EngineChoice, ...] = get_args(EngineChoice)
ENGINE_HELP = (
    "what runs the network: eager; compiled; static; cuda_graph on a GPU; onnxruntime on a CPU; "
    "onnxruntime_int8, the same with products in 8 bits; auto takes onnxruntime where the policy "
    "was loaded with it before, else eager"
)
