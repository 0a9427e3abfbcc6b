"""Loading a policy and warming it up, so that the first goal is as fast as the hundredth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

import numpy as np
import torch

from fastvla_core.errors import DependencyError, RosError
from fastvla_core.policy import FastVLA, Quantization
from fastvla_core.robot.contract import RobotContract
from fastvla_core.runtime.engine import InferenceWorker
from fastvla_core.types import Observation
from fastvla_ros.nodes.policy_server_parameters import ServerParameters

_QUANTIZATION: dict[str, Quantization | None] = {"none": None, "nf4": "nf4", "int8": "int8"}
_WARM_UP_RUNS = 3
_POLL_S = 0.002


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


def warm_up(worker: InferenceWorker, *, contract: RobotContract) -> float:
    """Infer a few times on noise of the robot's shapes; returns the last latency [s].

    The worker's own thread does it: libraries keep what they prepare per thread.

    Raises:
        Exception: whatever the policy raises.
    """
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
        worker.submit(observation)
        while (result := worker.poll()) is None:
            time.sleep(_POLL_S)
        if result.error is not None:
            raise result.error
        latency_s = result.latency_s
    return latency_s


T = TypeVar("T")


class BoundedLoader(Generic[T]):
    """Loads in a thread of its own, so that a transition ends even when loading hangs."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def load(self, work: Callable[[], T], *, timeout_s: float, discard: Callable[[T], object]) -> T:
        """The result of `work`.

        Args:
            discard: Takes a result that comes too late.

        Raises:
            RosError: it takes longer than `timeout_s`, or an earlier load still hangs.
            Exception: whatever `work` raises.
        """
        if self._thread is not None and self._thread.is_alive():
            raise RosError(
                "the policy cannot be loaded: an earlier load has not come back yet",
                mend="try again when its download or its device is done, or restart the server",
            )
        loading: Future[T] = Future()
        self._thread = threading.Thread(
            target=_deliver, args=(work, loading, discard), name="load_policy", daemon=True
        )
        self._thread.start()
        wait([loading], timeout_s)
        if loading.cancel():
            raise RosError(
                f"the policy was not loaded within {timeout_s:g} s",
                mend="fetch the checkpoint to this machine first, or choose a smaller one",
            )
        return loading.result()


def _deliver(work: Callable[[], T], loading: Future[T], discard: Callable[[T], object]) -> None:
    try:
        result = work()
    except BaseException as error:
        if loading.set_running_or_notify_cancel():
            loading.set_exception(error)
        return
    if loading.set_running_or_notify_cancel():
        loading.set_result(result)
    else:
        discard(result)
