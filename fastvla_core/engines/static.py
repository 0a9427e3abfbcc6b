"""The whole request recorded once per set of shapes: vision, prefix and every flow step.

Shapes: b batch, t action steps, a action dimensions.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastvla_core.engines.buckets import BucketedEngine, StaticRequest
from fastvla_core.engines.interface import Batch, FlowRequest
from fastvla_core.engines.names import EngineName
from fastvla_core.engines.recorder import CudaRecorder, EagerRecorder, Recorder, Recording
from fastvla_core.errors import PolicyError
from fastvla_core.quant import dequantized, quantized_layers


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """Two recordings over the same buffers.

    Attributes:
        whole: The prefix of the observation, and the actions.
        expert: The actions alone, from the prefix that `whole` left behind.
    """

    whole: Recording[tuple[Any, Tensor]]
    expert: Recording[Tensor]

    def run(self) -> Tensor:
        """The actions for what the buffers hold."""
        self.whole.replay()
        return self.whole.outputs[1]

    def refresh(self) -> Tensor:
        """The actions for the noise in the buffers, and the prefix of the last `run`."""
        self.expert.replay()
        return self.expert.outputs


class StaticEngine(BucketedEngine[RecordedRequest]):
    """Replays recordings; what depends on the flow times alone is made once for all requests.

    Args:
        model: Whose requests are run. Its weights must not change from now on.
        recorder: How work is repeated.
        name: "cuda_graph", or "static" where it is called again.
    """

    lengths: ClassVar[tuple[int, ...]] = (8, 16, 24, 32, 48, 64, 96, 128, 160, 200)

    def __init__(self, model: FlowRequest, *, recorder: Recorder, name: EngineName) -> None:
        super().__init__(model)
        self.name: EngineName = name
        self._recorder = recorder
        self._last: tuple[StaticRequest, RecordedRequest] | None = None
        packed = isinstance(model, nn.Module) and bool(quantized_layers(model))
        # On a GPU the kernels read packed weights; unpacked ones would stay in the graph's memory.
        self._unpacked = dequantized if packed and name == "static" else nullcontext
        with torch.inference_mode():
            self._features = tuple(self.model.step_features())

    def prepare(self, batch: Batch, noise_bta: Tensor) -> None:
        """See `BucketedEngine.prepare`; there is nothing to refresh from afterwards."""
        super().prepare(batch, noise_bta)
        self._last = None

    def refresh(self, noise_bta: Tensor, state: Tensor | None = None) -> Tensor:
        """Another chunk from the prefix of the last request: only the expert runs.

        Args:
            noise_bta: Where the flow starts; as many rows as the last request had.
            state: For networks whose state is not in the prefix (pi0); others ignore it.
        Raises:
            PolicyError: there was no request yet, or it had another number of rows.
        """
        with self._lock, torch.inference_mode():
            if self._last is None or self._last[0].noise_bta.shape != noise_bta.shape:
                raise PolicyError(
                    "there is no prefix to refresh a chunk of this batch from",
                    mend="run a whole request of the same size first",
                )
            request, recorded = self._last
            request.fill({} if state is None else {"state": state}, noise_bta)
            return recorded.refresh().clone()

    def _for(
        self, batch: Batch, noise_bta: Tensor, prompt: int
    ) -> tuple[StaticRequest, RecordedRequest]:
        self._last = super()._for(batch, noise_bta, prompt)
        return self._last

    def _make(self, request: StaticRequest) -> RecordedRequest:
        model, inputs, noise = self.model, request.inputs, request.noise_bta

        def whole() -> tuple[Any, Tensor]:
            with self._unpacked(model):
                prefix = model.read_observation(inputs)
                return prefix, model.follow_flow(prefix, inputs, noise, self._features)

        recording = self._recorder.record(whole)
        prefix = recording.outputs[0]

        def expert() -> Tensor:
            with self._unpacked(model):
                return model.follow_flow(prefix, inputs, noise, self._features)

        return RecordedRequest(recording, self._recorder.record(expert))


def static_engine(model: FlowRequest) -> StaticEngine:
    """Static buffers and folded flow times, executed by calling the network: any device."""
    return StaticEngine(model, recorder=EagerRecorder(), name="static")


def cuda_graph_engine(model: FlowRequest, device: torch.device) -> StaticEngine:
    """The same as CUDA graphs."""
    return StaticEngine(model, recorder=CudaRecorder(device), name="cuda_graph")
