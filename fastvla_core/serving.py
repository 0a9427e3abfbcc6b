"""Loading a policy to serve it, to nodes of this process or to other machines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fastvla_core.engines.names import EngineChoice
from fastvla_core.errors import DependencyError
from fastvla_core.models.loading import Quantization
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract import RobotContract
from fastvla_core.types import Observation

_LOADED_AS: dict[str, Quantization | None] = {"none": None, "nf4": "nf4", "int8": "int8"}
_WARM_UP_RUNS = 3


def load_to_serve(
    checkpoint: str,
    *,
    quantization: str = "nf4",
    device: str = "auto",
    threads: int = 0,
    contract: RobotContract | None = None,
    vision_tokens: VisionTokens | None = None,
    engine: EngineChoice = "eager",
) -> FastVLA:
    """Load a policy as the parameters of a server say.

    Args:
        checkpoint: A shipped name, a folder, or a Hugging Face repository.
        quantization: "none", "nf4" or "int8".
        device: "auto", "cpu" or "cuda"; "auto" takes a GPU where there is one.
        threads: Of the CPU; 0 leaves PyTorch's choice.
        contract: The robot that is served.
        vision_tokens: Which visual tokens are kept and what is reused; None leaves it to the
            checkpoint.
        engine: What runs plain requests; see `FastVLA.use_engine`. It is made ready here.

    Raises:
        FastVLAError: it is missing, damaged, or was trained for another robot; says how they
            differ.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise DependencyError(
            "parameter device is 'cuda', but PyTorch sees no CUDA device",
            mend="set device to auto or cpu, or install a CUDA build of PyTorch and its driver",
        )
    if threads > 0:
        torch.set_num_threads(threads)
    return FastVLA.from_pretrained(
        checkpoint,
        quantization=_LOADED_AS[quantization],
        device=device,
        contract=contract,
        vision_tokens=vision_tokens,
        engine=engine,
    )


def warm_up_observations(contract: RobotContract) -> Iterator[Observation]:
    """Noise of the robot's shapes, a few times: what an inference prepares once is then ready."""
    random = np.random.default_rng(0)
    for run in range(_WARM_UP_RUNS):
        yield Observation(
            stamp_ns=run + 1,
            task="wave",
            images={
                camera.name: random.integers(0, 256, (camera.height, camera.width, 3), np.uint8)
                for camera in contract.policy_cameras
            },
            state=np.zeros(len(contract.state_names), np.float32),
        )
