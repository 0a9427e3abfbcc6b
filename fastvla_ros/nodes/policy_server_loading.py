"""Loading a policy and warming it up, so that the first goal is as fast as the hundredth."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, Protocol, TypeVar

from fastvla_core.errors import RosError
from fastvla_core.policy import FastVLA
from fastvla_core.remote.address import is_remote
from fastvla_core.remote.dependency import require_grpc
from fastvla_core.robot.contract import RobotContract
from fastvla_core.runtime.engine import InferencePolicy, InferenceWorker
from fastvla_core.serving import load_to_serve, warm_up_observations
from fastvla_ros.nodes.policy_server_parameters import ServerParameters

_POLL_S = 0.002
_CONNECT_TIMEOUT_S = 10.0


def _all_cores_but_one() -> int:
    """CPU threads that leave a core to the rest of the robot.

    PyTorch takes all of them, and each of its steps then waits for the one that shares its core
    with the cameras: on two cores an inference of the nano policy took 160 ms instead of 60.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)


class ServedPolicy(InferencePolicy, Protocol):
    """A policy of this process or of another machine."""

    @property
    def device(self) -> object:
        """Where it runs, for the log."""
        ...


def load_policy(parameters: ServerParameters, *, contract: RobotContract) -> ServedPolicy:
    """Load the checkpoint for this robot, or reach the machine that serves it.

    Raises:
        FastVLAError: it is missing, damaged, cannot be reached, or was trained for another robot;
            says how they differ.
    """
    if not is_remote(parameters.checkpoint):
        return load_to_serve(
            parameters.checkpoint,
            quantization=parameters.quantization,
            device=parameters.device,
            threads=parameters.threads or _all_cores_but_one(),
            contract=contract,
            vision_tokens=parameters.vision_tokens,
            engine=parameters.engine,
        )
    require_grpc()
    from fastvla_core.remote.client import RemotePolicy

    return RemotePolicy.connect(
        parameters.checkpoint,
        credentials=parameters.remote_credentials or None,
        contract=contract,
        timeout_s=parameters.inference_timeout_s,
        connect_timeout_s=_CONNECT_TIMEOUT_S,
        jpeg_quality=parameters.remote_jpeg_quality,
    )


def how_it_is_served(parameters: ServerParameters, policy: ServedPolicy) -> str:
    """Weights and device, for the log; those of a remote policy are the other machine's matter."""
    if is_remote(parameters.checkpoint):
        return str(policy.device)
    engine = policy.engine.name if isinstance(policy, FastVLA) else parameters.engine
    return f"{parameters.quantization}, {policy.device}, engine {engine}"


def warm_up(worker: InferenceWorker, *, contract: RobotContract) -> float:
    """Infer a few times on noise of the robot's shapes; returns the last latency [s].

    The worker's own thread does it: libraries keep what they prepare per thread.

    Raises:
        Exception: whatever the policy raises.
    """
    latency_s = 0.0
    for observation in warm_up_observations(contract):
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
