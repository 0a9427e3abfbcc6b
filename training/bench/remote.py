"""What it costs to have the policy in another process, behind gRPC on the loopback interface."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from fastvla_core.errors import FastVLAError
from fastvla_core.remote.client import RemotePolicy
from fastvla_core.serving import load_to_serve
from fastvla_core.types import ActionChunk, Observation

_CAMERAS, _HEIGHT, _WIDTH = ("front", "left", "right"), 480, 640
_WARM_UP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTiming:
    """Latencies of one inference [ms]."""

    observation: str
    policy: str
    p50_ms: float
    p99_ms: float


class NoModel:
    """A policy that answers at once, so that only the way is left."""

    conditionings = ()

    def reset(self, seed: int = 0) -> None:
        """Nothing is kept."""

    def infer(self, observation: Observation, /, *, prefix: object = None) -> ActionChunk:
        """The present state, 50 times."""
        return ActionChunk(
            stamp_ns=observation.stamp_ns,
            chunk_id=0,
            names=tuple(f"joint{n}" for n in range(len(observation.state))),
            dt_s=0.02,
            positions=np.tile(observation.state.astype(np.float64), (50, 1)),
        )


def time_remote(policy: str, *, rounds: int = 300, threads: int = 2) -> list[RemoteTiming]:
    """Time the policy here and behind `fastvla serve`, and the way alone with large images.

    The variants of a pair take turns, one call each per round, so that drift hits both alike.
    """
    from training.bench.scenes import simulator_observations

    with ExitStack() as stack:
        local = load_to_serve(policy, quantization="none", threads=threads)
        serve = ["-m", "fastvla_core.cli", "serve", "--policy", policy, "--quantization", "none"]
        serve += ["--threads", str(threads), "--listen", "127.0.0.1:0"]
        served = stack.enter_context(_served(serve))
        scenes = simulator_observations(20, cameras=local.config.cameras)
        rows = _in_turn(
            "2 x 96 x 96", scenes, {"here": local.infer, "served": served().infer}, rounds
        )
        way = stack.enter_context(_served(["-m", "training.bench.remote"]))
        variants = {
            "way": way().infer,
            "way, JPEG 90": way(jpeg_quality=90).infer,
        }
        rows += _in_turn("3 x 640 x 480", _camera_pictures(), variants, rounds)
    return rows


def _in_turn(
    title: str,
    observations: list[Observation],
    variants: Mapping[str, Callable[[Observation], ActionChunk]],
    rounds: int,
) -> list[RemoteTiming]:
    times_ms: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(-_WARM_UP, rounds):
        for name, infer in variants.items():
            begin = time.perf_counter()
            infer(observations[index % len(observations)])
            if index >= 0:
                times_ms[name].append((time.perf_counter() - begin) * 1e3)
    return [
        RemoteTiming(
            observation=title,
            policy=name,
            p50_ms=float(np.percentile(values, 50)),
            p99_ms=float(np.percentile(values, 99)),
        )
        for name, values in times_ms.items()
    ]


def _camera_pictures() -> list[Observation]:
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    # Smooth with some noise, as a camera's are: pure noise would be unfair to JPEG.
    noise = np.random.default_rng(0).integers(0, 16, (_HEIGHT, _WIDTH, 3))
    image = (np.stack([x % 240, y % 240, (x + y) % 240], -1) + noise).astype(np.uint8)
    state = np.zeros(14, np.float32)
    images = dict.fromkeys(_CAMERAS, image)
    return [Observation(stamp_ns=n + 1, task="tidy up", images=images, state=state) for n in (0, 1)]


@contextmanager
def _served(arguments: list[str]) -> Iterator[Callable[..., RemotePolicy]]:
    """A server in a process of its own; gives what connects to it."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if "grpc://" not in said:
                raise FastVLAError("the server of this measurement did not start: see above")
            url = "grpc://" + said.partition("grpc://")[2].partition(";")[0].strip()
            yield lambda **options: RemotePolicy.connect(url, **options)
        finally:
            process.terminate()


def _serve_no_model() -> None:
    from fastvla_core.remote.address import parse_listen
    from fastvla_core.remote.messages import Description
    from fastvla_core.remote.service import PolicyServer

    description = Description(
        version="", checkpoint="no model", policy_id="", quantization="", device="cpu",
        contract=None,
    )  # fmt: skip
    listen = parse_listen("127.0.0.1:0", secure=False)
    with PolicyServer(NoModel(), description=description, listen=listen) as server:
        print(server.address, flush=True)
        while True:
            time.sleep(60.0)


if __name__ == "__main__":
    _serve_no_model()
