"""What would break the capture of a CUDA graph, found without a GPU; and the capture, on one.

Tensors on "meta" hold no values: an operation that needs a value on the host, or that moves one
between host and device, is seen by the guard below, as a capturing stream would see it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastvla_core.engines.recorder import Recording
from fastvla_core.engines.static import StaticEngine
from fastvla_core.engines.trees import tensors_of
from fastvla_core.models.registry import POLICIES
from fastvla_core.models.token_table import keep_on_host, with_words
from fastvla_core.models.weightless import weightless
from fastvla_core.policy import FastVLA

from .policies import KINDS, furthest, policy_of

_WAITS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "item", "masked_select"}


class CaptureGuard(TorchDispatchMode):
    """Refuses what a capturing stream refuses: reading a value, and copies from or to the host."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func._schema.name.split("::")[-1]
        assert name not in _WAITS, f"{name} waits for the device"
        result = func(*args, **(kwargs or {}))
        places = {t.device.type for t in tensors_of((_tuples(args), _tuples(result)))}
        assert places != {"cpu", "meta"}, f"{name} moves a tensor between host and device"
        return result


class NoTensorsFromTheHost(TorchFunctionMode):
    """Refuses tensors made of Python numbers: a GPU gets them by a copy, which "meta" hides."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        assert func not in (torch.tensor, torch.as_tensor), "a tensor comes from the host"
        return func(*args, **(kwargs or {}))


class GuardedRecorder:
    """Does what a capture does, in the guard's presence: every recording is run once."""

    def record(self, work: Callable[[], Any]) -> Any:
        with NoTensorsFromTheHost(), CaptureGuard():
            outputs = work()
        return Recording(outputs, lambda: None)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("kind", KINDS)
def test_a_capture_neither_waits_for_the_device_nor_copies_from_the_host(
    kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # It knows of no autocast on "meta".
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _device: False)
    policy = policy_of(kind, tmp_path)
    engine = prepared_on_meta(policy, weightless_twin(policy))
    assert engine.prepared_shapes >= 1


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_a_capture_reads_no_token_table_that_the_host_keeps(
    kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _device: False)
    policy = policy_of(kind, tmp_path)
    keep_on_host(policy.model)
    twin = weightless_twin(policy)
    twin.language_model.embed_tokens = policy.model.language_model.embed_tokens
    assert prepared_on_meta(policy, twin).prepared_shapes == 1


def weightless_twin(policy: FastVLA) -> Any:
    with weightless():
        return POLICIES.load(policy.config.to_dict()["type"]).model(policy.config).eval()


def prepared_on_meta(policy: FastVLA, model: Any) -> StaticEngine:
    observation = policy.processor.random_observation(0)
    batch = policy.processor.observation_batch([observation], device=policy.device)
    batch = with_words(policy.model, batch)
    noise = torch.zeros(1, *policy.config.noise_shape)
    engine = StaticEngine(model, recorder=GuardedRecorder(), name="cuda_graph")
    engine.prepare({name: tensor.to("meta") for name, tensor in batch.items()}, noise.to("meta"))
    return engine


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x * float(x.sum()),
        lambda x: x[x > 0],
        lambda x: x + torch.tensor([1.0, 2.0], device="meta"),
        lambda x: x.cpu(),
    ],
)
def test_the_guard_sees_what_a_capture_would_refuse(work):
    x = torch.empty(2, device="meta")
    with torch.inference_mode(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        GuardedRecorder().record(lambda: work(x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("quantization", [None, "nf4"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_captured_graph_gives_the_actions_of_the_network(kind, quantization, tmp_path: Path):
    if kind == "flow":
        policy_of(kind, tmp_path)
    reference = policy_of(kind, tmp_path, quantization=quantization, device="cuda")
    policy = policy_of(
        kind, tmp_path, quantization=quantization, device="cuda", engine="cuda_graph"
    )
    assert furthest(policy, reference) < 1e-4
    assert isinstance(policy.engine, StaticEngine)
    observation = policy.processor.random_observation(7)
    batch = policy.processor.observation_batch([observation], device=policy.device)
    noise = torch.randn(1, *policy.config.noise_shape, device="cuda")
    whole = policy.engine(batch, -noise)
    policy.engine(batch, noise)
    torch.testing.assert_close(policy.engine.refresh(-noise), whole, rtol=0, atol=1e-4)
