"""Several processes train as one does that takes their parts one after the other."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.errors import DatasetError
from fastvla_core.policy import FastVLA
from tests.training.test_finetune import CONFIG, dataset_for, small_policy
from training.finetune import Trainer
from training.processes import Processes, rows_of, training_processes
from training.recipe import TrainConfig

SHARED = dataclasses.replace(CONFIG, steps=4, batch_size=8, camera_dropout=0.3)


def train(out: Path, config: TrainConfig) -> None:
    torch.set_num_threads(1)
    policy = small_policy()
    with training_processes() as processes:
        out.mkdir(parents=True, exist_ok=True)
        Trainer(
            policy, dataset=dataset_for(policy), config=config, out=out, processes=processes
        ).run()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_processes_follow_the_curve_of_one(tmp_path: Path):
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.test_processes", str(tmp_path / "two")],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "GLOO_SOCKET_IFNAME": "lo",
            },
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(150) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    train(tmp_path / "one", dataclasses.replace(SHARED, accumulate=2))
    curves = [
        np.genfromtxt(tmp_path / name / "loss.csv", delimiter=",", names=True)["loss"]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)
    one, two = (
        FastVLA.from_pretrained(tmp_path / n / "policy").model.state_dict() for n in ("one", "two")
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4)


def test_every_sample_is_taken_by_one_process_in_one_part():
    taken = [rows_of(Processes(rank, 3), batch_size=12, parts=2) for rank in range(3)]
    assert sorted(np.concatenate(taken)) == list(range(12))
    assert taken[1].tolist() == [2, 3, 8, 9]


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(DatasetError, match="cannot be shared by 3 processes") as caught:
        rows_of(Processes(0, 3), batch_size=64, parts=2)
    assert "multiple of 6" in caught.value.mend


if __name__ == "__main__":
    train(Path(sys.argv[1]), SHARED)
