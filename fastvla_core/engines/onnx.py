"""The network in ONNX Runtime, on the CPU; what was converted once is kept on disk."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import onnxscript
import torch
from torch import Tensor, nn

import fastvla_core
from fastvla_core.engines.eight_bits import in_eight_bits
from fastvla_core.engines.exported import ExportedEngine, Runnable
from fastvla_core.engines.interface import FlowRequest
from fastvla_core.engines.names import EngineName
from fastvla_core.models.checkpoint import written_atomically

_GRAPH = "graph.onnx"
_DECIDES = ("engines", "kernels", "layers", "models", "quant")


class OnnxEngine(ExportedEngine):
    """Runs two ONNX graphs with as many threads as PyTorch had when they were loaded.

    They are kept below `cache_folder()`, by the weights and everything else they depend on.
    """

    name: EngineName = "onnxruntime"

    def __init__(self, model: FlowRequest) -> None:
        super().__init__(model)
        self._folder = _folder_of(model, self.name)

    def converted(self, module: nn.Module, examples: tuple[Tensor, ...]) -> Runnable:
        """Convert, or load what an earlier process converted."""
        shapes = [(tuple(tensor.shape), tensor.dtype) for tensor in examples]
        folder = self._folder / _digest([type(module).__name__, shapes])
        names = [f"input_{index}" for index in range(len(examples))]
        if not (folder / _GRAPH).is_file():
            with written_atomically(folder) as new:
                _export(module, examples, names=names, path=new / _GRAPH)
        return _session(folder / _GRAPH, names)


class Int8OnnxEngine(OnnxEngine):
    """The same with the products of all large linear layers in 8 bits: other actions, faster.

    Attention and the layers that the policy keeps at full precision stay in float32.
    """

    name: EngineName = "onnxruntime_int8"

    def graph_layers(self) -> AbstractContextManager[None]:
        """See `ExportedEngine`."""
        return in_eight_bits(self.model)


def is_kept(model: Any) -> bool:
    """Whether an earlier process converted this network, with these weights, at full precision."""
    # Reading all weights of a large network takes seconds.
    return cache_folder().is_dir() and _folder_of(model, OnnxEngine.name).is_dir()


def cache_folder() -> Path:
    """Where converted networks are kept; deleting it costs the next conversion only."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "fastvla" / "onnx"


def _export(
    module: nn.Module, examples: tuple[Tensor, ...], *, names: list[str], path: Path
) -> None:
    with warnings.catch_warnings():
        # The exporter warns of its own future, about which its callers can do nothing.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, examples, dynamo=True, input_names=names, verbose=False, optimize=True
        )
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path)


def _session(path: Path, names: list[str]) -> Runnable:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait by spinning take the cores that cameras and the guard need.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session: Any = onnxruntime.InferenceSession(
        str(path), settings, providers=["CPUExecutionProvider"]
    )
    # The converter leaves out what the network does not read.
    used = [(item.name, names.index(item.name)) for item in session.get_inputs()]

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        feed = {name: tensors[index].numpy() for name, index in used}
        return [torch.from_numpy(value) for value in session.run(None, feed)]

    return run


def _folder_of(model: Any, engine: EngineName) -> Path:
    """Where an engine's graphs of a network are, by its weights and what makes a graph of them."""
    versions = (torch.__version__, onnx.__version__, onnxscript.__version__)
    made_by = [engine, _sources(), versions, model.config, model]
    tensors = sorted(model.state_dict().items())
    return cache_folder() / _digest([*made_by, *(part for item in tensors for part in item)])


def _digest(parts: Sequence[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(part.detach().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


@cache
def _sources() -> str:
    """Stands for all that decides what a network computes; a few megabytes are read."""
    root = Path(fastvla_core.__file__).parent
    paths = (p for folder in _DECIDES for p in sorted((root / folder).rglob("*.py")))
    return _digest([path.read_bytes() for path in paths])
