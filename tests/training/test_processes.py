"""Several processes train as one does that takes their parts one after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastvla_core.errors import DatasetError
from fastvla_core.models.lora import LoraConfig
from tests.training.test_finetune import CONFIG, small_policy
from training.bench.training_speed import random_cache
from training.dataset import Batch, StepDataset
from training.finetune import Trainer
from training.memory import counted
from training.processes import ALONE, Processes, rows_of, training_processes
from training.recipe import TrainConfig
from training.sharding import own_part

# Five trainings in each of two processes.
pytestmark = pytest.mark.timeout(900)

SHARED = dataclasses.replace(CONFIG, steps=4, batch_size=8, camera_dropout=0.3)
QLORA = dataclasses.replace(
    SHARED,
    learning_rate=1e-2,
    lora=LoraConfig(rank=2, alpha=4.0, modules=("expert.layers.*",), quantization="nf4"),
)
PARTS = dataclasses.replace(SHARED, parallel="fsdp", activations="recompute")
# What two processes do.
RUNS = {
    "ddp": SHARED,
    "fsdp": PARTS,
    "qlora": dataclasses.replace(QLORA, parallel="fsdp"),
    "zero": dataclasses.replace(SHARED, parallel="deepspeed"),
    "zero_1": dataclasses.replace(
        QLORA, parallel="deepspeed", deepspeed={"zero_optimization": {"stage": 1}}
    ),
}
# Which of them are stopped at their last step, and started again.
STOPPED = ("fsdp", "zero")
# Runs of one process that they follow.
ALIKE = {"ddp": "full", "fsdp": "full", "qlora": "qlora", "zero": "full", "zero_1": "qlora"}


def trainer(out: Path, config: TrainConfig, processes: Processes = ALONE) -> Trainer:
    torch.set_num_threads(1)
    policy = small_policy()
    cameras, chunk_size = policy.config.cameras, policy.config.chunk_size
    dataset = StepDataset(random_cache(policy, frames=32), cameras=cameras, chunk_size=chunk_size)
    # There is but one episode.
    dataset.validation_frames = np.arange(8)
    out.mkdir(parents=True, exist_ok=True)
    return Trainer(policy, dataset=dataset, config=config, out=out, processes=processes)


def stop(run: Trainer, *, at: int) -> None:
    take = run._step

    def dying(step: int, batch: Batch) -> float:
        if step == at:
            raise KeyboardInterrupt
        return take(step, batch)

    run._step = dying
    with contextlib.suppress(KeyboardInterrupt):
        run.run()


def train_all(out: Path) -> None:
    """What each of the two processes runs."""
    with training_processes() as processes:
        for name, config in RUNS.items():
            if name in STOPPED:
                stop(trainer(out / name, config, processes), at=3)
            run = trainer(out / name, config, processes)
            kept = {
                "weights": memory_of(run._model.parameters()),
                "averages": memory_of(run._ema.values()),
                "estimate": dataclasses.asdict(run.memory),
            }
            run.run()
            states = run._optimizer.state.values()
            kept["optimizer"] = memory_of(state["exp_avg"] for state in states) * 2
            (out / f"{name}_{processes.rank}.json").write_text(json.dumps(kept))


def memory_of(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes that this process keeps of them."""
    parts = [own_part(tensor) for tensor in tensors]
    return sum(part.numel() * part.element_size() for part in parts)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes on the CPU, as `accelerate launch` starts them, and with it torchrun."""
    out = tmp_path_factory.mktemp("two")
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    port = ["--main_process_port", str(free_port())]
    ours = ["-m", "tests.training.test_processes", str(out)]
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        # Where the user's own choices for accelerate would be.
        "HF_HOME": str(out),
    }
    subprocess.run(
        [sys.executable, "-m", *launcher, *options, *port, *ours],
        env=environment,
        cwd=Path(__file__).parents[2],
        check=True,
        timeout=800,
    )
    return out


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that takes the parts of two one after the other."""
    out = tmp_path_factory.mktemp("one")
    for name, config in {"full": SHARED, "qlora": QLORA}.items():
        trainer(out / name, dataclasses.replace(config, accumulate=2)).run()
    return out


def curve(run: Path) -> np.ndarray:
    return np.genfromtxt(run / "loss.csv", delimiter=",", names=True)


@pytest.mark.parametrize(("name", "alone"), ALIKE.items())
def test_two_processes_follow_the_curve_of_one_and_write_its_files(
    two: Path, one: Path, name: str, alone: str
):
    for column in ("loss", "validation_loss"):
        expected, found = (curve(run)[column] for run in (one / alone, two / name))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isfinite(curve(two / name)["validation_loss"][-1])
    files = ["checkpoints/step_00000004/trainer.safetensors", "policy/model.safetensors"]
    if alone == "qlora":
        files.append("adapter/adapter_model.safetensors")
    for file in files:
        expected, found = (load_file(run / file) for run in (one / alone, two / name))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4, msg=key)


@pytest.mark.parametrize("name", ["fsdp", "qlora"])
def test_each_process_keeps_its_part_as_the_estimate_says(two: Path, one: Path, name: str):
    whole = counted(
        trainer(two / "whole", dataclasses.replace(RUNS[name], parallel="ddp"))._learner,
        config=SHARED,
        part=4,
        activations=0,
    )
    for rank in range(2):
        kept = json.loads((two / f"{name}_{rank}.json").read_text())
        for what in ("weights", "averages", "optimizer"):
            # A row more or less, where rows cannot be halved.
            assert kept[what] == pytest.approx(getattr(whole, what) / 2, rel=0.02)
            assert kept["estimate"][what] == pytest.approx(kept[what], rel=0.02)


def test_with_zero_each_process_keeps_its_part_of_the_states(two: Path, one: Path):
    for rank in range(2):
        kept = json.loads((two / f"zero_{rank}.json").read_text())
        whole = kept["weights"]
        # Parts end at a multiple of a few numbers.
        assert kept["optimizer"] == pytest.approx(whole, rel=0.01)
        assert kept["averages"] == kept["estimate"]["averages"] == whole
        assert kept["estimate"]["optimizer"] == whole


@pytest.mark.parametrize("name", STOPPED)
def test_a_run_in_parts_is_gone_on_with_by_one_process(name: str, two: Path, tmp_path: Path):
    shutil.copytree(two / name / "checkpoints", tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000004")
    trainer(tmp_path, RUNS[name]).run()
    # What is drawn follows from the number of processes.
    np.testing.assert_allclose(curve(tmp_path)["loss"], curve(two / name)["loss"], rtol=0.2)
    assert curve(tmp_path)["loss"][0] == curve(two / name)["loss"][0]


def test_every_sample_is_taken_by_one_process_in_one_part():
    taken = [rows_of(Processes(rank, 3), batch_size=12, parts=2) for rank in range(3)]
    assert sorted(np.concatenate(taken)) == list(range(12))
    assert taken[1].tolist() == [2, 3, 8, 9]


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(DatasetError, match="cannot be shared by 3 processes") as caught:
        rows_of(Processes(0, 3), batch_size=64, parts=2)
    assert "multiple of 6" in caught.value.mend


if __name__ == "__main__":
    train_all(Path(sys.argv[1]))
