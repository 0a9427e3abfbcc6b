"""Which engines can run here, what is said where one cannot, and what `auto` takes."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.engines import making
from fastvla_core.engines.making import automatic, make_engine, obstacles
from fastvla_core.engines.memory import peak_memory, reset_peak_memory
from fastvla_core.engines.names import ENGINE_CHOICES, ENGINES
from fastvla_core.errors import DependencyError, PolicyError
from fastvla_core.policy import FastVLA
from fastvla_core.serving import load_to_serve

from ..models.tiny import observation, tiny_policy
from .policies import GOLDENS


def test_every_engine_is_a_choice_and_so_is_auto():
    assert set(ENGINE_CHOICES) == {"auto", *ENGINES}
    assert obstacles(tiny_policy().model).keys() == set(ENGINES)


def test_a_policy_is_eager_unless_told_otherwise():
    policy = tiny_policy()
    assert policy.engine.name == "eager"
    policy.use_engine("static")
    assert policy.engine.name == "static"
    policy.use_engine("eager")
    assert policy.engine.name == "eager"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_graphs_without_a_gpu_are_refused_and_the_policy_stays_as_it_was():
    policy = tiny_policy()
    with pytest.raises(DependencyError, match="cuda_graph needs a CUDA device"):
        policy.use_engine("cuda_graph")
    assert policy.engine.name == "eager"
    assert np.isfinite(policy.infer(observation()).positions).all()


@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "onnxscript"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        making.importlib.util,
        "find_spec",
        lambda name: None if name == package else found("json"),  # any that is there
    )
    model = tiny_policy().model
    with pytest.raises(DependencyError, match=f"needs the package {package}") as caught:
        make_engine("onnxruntime", model)
    assert "fastvla[onnx]" in caught.value.mend
    assert automatic(model) == "eager"


def test_weights_that_are_not_float32_are_refused_by_onnx_runtime():
    pytest.importorskip("onnxruntime")
    with pytest.raises(PolicyError, match=r"float32, and weights are torch\.bfloat16"):
        make_engine("onnxruntime", tiny_policy().model.bfloat16())


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DependencyError, match=r"C\+\+ compiler"):
        make_engine("compiled", tiny_policy().model)


@pytest.mark.parametrize("engine", ["static", "onnxruntime"])
def test_a_policy_that_is_no_flow_policy_says_which_engines_are_left(engine):
    policy = FastVLA.from_pretrained(GOLDENS / "act/checkpoint")
    with pytest.raises(PolicyError, match="runs flow policies") as caught:
        policy.use_engine(engine)
    assert "eager or compiled" in caught.value.mend
    assert automatic(policy.model) == "eager"


def test_other_weights_and_other_configs_begin_at_eager(tmp_path: Path):
    policy = tiny_policy()
    policy.use_engine("static")
    doubled = {name: 2 * tensor for name, tensor in policy.model.state_dict().items()}
    assert policy.with_weights(doubled).engine.name == "eager"
    assert policy.reconfigured(num_inference_steps=2).engine.name == "eager"


@pytest.mark.parametrize("kind", ["flow", "smolvla"])
def test_images_go_to_the_device_through_the_upload_where_there_is_one(kind, tmp_path: Path):
    policy = (
        tiny_policy() if kind == "flow" else FastVLA.from_pretrained(GOLDENS / kind / "checkpoint")
    )
    seen = policy.processor.random_observation(0)
    expected = policy.processor.observation_batch([seen], device=policy.device)
    taken: list[str] = []

    def upload(camera: str, image: torch.Tensor) -> torch.Tensor:
        taken.append(camera)
        return image.clone()

    policy.processor.upload = upload
    batch = policy.processor.observation_batch([seen], device=policy.device)
    assert len(taken) == len(seen.images)
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_a_server_loads_a_policy_on_the_engine_that_it_is_told(tmp_path: Path):
    tiny_policy().save_pretrained(tmp_path)
    threads = torch.get_num_threads()
    served = load_to_serve(str(tmp_path), device="cpu", threads=threads, engine="static")
    assert served.engine.name == "static"
    assert served.quantization == "nf4"
    with pytest.raises(DependencyError, match="cuda_graph"):
        load_to_serve(str(tmp_path), device="cpu", engine="cuda_graph")


def test_the_peak_covers_what_was_allocated_since_the_reset():
    device = torch.device("cpu")
    reset_peak_memory(device)
    before = peak_memory(device).host_bytes
    if before is None:
        pytest.skip("the system does not tell")
    block = torch.ones(50_000_000)
    del block
    after = peak_memory(device).host_bytes
    assert after is not None
    assert after - before > 150_000_000
    assert peak_memory(device).device_bytes is None
    assert "MB" in str(peak_memory(device))
