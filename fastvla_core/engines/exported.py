"""Requests in another runtime: the network becomes two graphs, one per observation, one per step.

Unrolled into one graph, nano takes 7 % less processor time, but its conversion three times as long,
and every step brings its own copy of the expert's packed weights.
Shapes: b batch, t action steps, a action dimensions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastvla_core.engines.buckets import BucketedEngine, StaticRequest
from fastvla_core.engines.interface import FlowRequest
from fastvla_core.engines.trees import tensors_of, with_tensors
from fastvla_core.quant import QuantizedLinear, quantized_layers

Runnable = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class ExportedRequest:
    """Two graphs of another runtime over the buffers of a request."""

    request: StaticRequest
    observe: Runnable
    step: Runnable
    features: tuple[tuple[Tensor, ...], ...]
    action_dim: int

    def run(self) -> Tensor:
        """The actions for what the buffers hold."""
        inputs = tuple(self.request.inputs.values())
        observed = self.observe(inputs)
        x = self.request.noise_bta
        for feature in self.features:
            (x,) = self.step((x, *feature, *inputs, *observed))
        return x[..., : self.action_dim]


class ExportedEngine(BucketedEngine[ExportedRequest]):
    """Converts at the first request of a set of shapes; weights are then in memory twice.

    Quantised layers are unpacked: the runtime knows no layers of ours.
    """

    batches: ClassVar[bool] = False

    def __init__(self, model: FlowRequest) -> None:
        super().__init__(model)
        with torch.no_grad():
            self._features = tuple(self.model.step_features())

    @abstractmethod
    def converted(self, module: nn.Module, examples: tuple[Tensor, ...]) -> Runnable:
        """A module as a graph of the runtime; it takes and gives tensors like the examples."""

    def graph_layers(self) -> AbstractContextManager[None]:
        """While this is open the model has the layers that the graphs are made of."""
        return unpacked(self.model)

    def _make(self, request: StaticRequest) -> ExportedRequest:
        names, inputs = tuple(request.inputs), tuple(request.inputs.values())
        # Tensors of inference mode cannot be exported.
        with torch.inference_mode(False), torch.no_grad(), self.graph_layers():
            inputs = tuple(tensor.clone() for tensor in inputs)
            noise = request.noise_bta.clone()
            template = self.model.read_observation(dict(zip(names, inputs, strict=True)))
            observed = tuple(t.clone() for t in tensors_of(template))
            features = tuple(tuple(tensors_of(feature)) for feature in self._features)
            observe = self.converted(_Observe(self.model, names), inputs)
            step = _Step(self.model, names, template=template, feature=self._features[0])
            examples = (noise, *features[0], *inputs, *observed)
            return ExportedRequest(
                request,
                observe,
                self.converted(step, examples),
                features,
                self.model.action_dim,
            )


class _Observe(nn.Module):
    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        batch = dict(zip(self.names, inputs, strict=True))
        return tuple(tensors_of(self.model.read_observation(batch)))


class _Step(nn.Module):
    def __init__(self, model: Any, names: tuple[str, ...], *, template: Any, feature: Any) -> None:
        super().__init__()
        self.model, self.names = model, names
        self.template, self.feature = template, feature

    def forward(self, x_bta: Tensor, *others: Tensor) -> tuple[Tensor]:
        rest = iter(others)
        feature = with_tensors(self.feature, rest)
        batch = {name: next(rest) for name in self.names}
        observed = with_tensors(self.template, rest)
        return (self.model.flow_step(observed, batch, x_bta, feature),)


def unpacked(model: nn.Module) -> AbstractContextManager[None]:
    """Every quantised layer is a plain one with the same values until the block ends."""
    return replaced(model, {n: _plain(layer) for n, layer in quantized_layers(model).items()})


@contextmanager
def replaced(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """These layers are in the place of the model's own, by dotted name, until the block ends."""
    own = {name: model.get_submodule(name) for name in layers}
    _put(model, layers)
    try:
        yield
    finally:
        _put(model, own)


def _put(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    for name, layer in layers.items():
        model.set_submodule(name, layer)


def _plain(layer: QuantizedLinear) -> nn.Linear:
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(layer.dense(torch.float32), requires_grad=False)
    plain.register_parameter("bias", layer.bias)
    return plain
