"""Loading a policy and warming it up, so that the first goal is as fast as the hundredth."""

from __future__ import annotations

import time

import numpy as np
import torch

from fastvla_core.errors import DependencyError
from fastvla_core.policy import FastVLA, Quantization
from fastvla_core.robot.contract import RobotContract
from fastvla_core.types import Observation
from fastvla_ros.nodes.policy_server_parameters import ServerParameters

_QUANTIZATION: dict[str, Quantization | None] = {"none": None, "nf4": "nf4", "int8": "int8"}
_WARM_UP_RUNS = 3


def load_policy(parameters: ServerParameters, *, contract: RobotContract) -> FastVLA:
    """Load the checkpoint for this robot.

    Raises:
        FastVLAError: it is missing, damaged, or was trained for another robot; says how they
            differ.
    """
    device = parameters.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise DependencyError(
            "parameter device is 'cuda', but PyTorch sees no CUDA device",
            mend="set device to auto or cpu, or install a CUDA build of PyTorch and its driver",
        )
    if parameters.threads > 0:
        torch.set_num_threads(parameters.threads)
    return FastVLA.from_pretrained(
        parameters.checkpoint,
        quantization=_QUANTIZATION[parameters.quantization],
        device=device,
        contract=contract,
    )


def warm_up(policy: FastVLA, *, contract: RobotContract) -> float:
    """Infer a few times on noise of the robot's shapes; returns the last latency [s]."""
    random = np.random.default_rng(0)
    latency_s = 0.0
    for run in range(_WARM_UP_RUNS):
        observation = Observation(
            stamp_ns=run + 1,
            task="wave",
            images={
                camera.name: random.integers(0, 256, (camera.height, camera.width, 3), np.uint8)
                for camera in contract.policy_cameras
            },
            state=np.zeros(len(contract.state_names), np.float32),
        )
        begin = time.perf_counter()
        policy.infer(observation)
        latency_s = time.perf_counter() - begin
    return latency_s
