"""A policy without a model, a server around it, and observations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from fastvla_core.remote.address import Address
from fastvla_core.remote.messages import Description
from fastvla_core.remote.service import PolicyServer
from fastvla_core.types import ActionChunk, ChunkPrefix, Observation

LOOPBACK = Address(host="127.0.0.1", port=0, secure=False)


def observation(stamp_ns: int = 1, *, task: str = "wave", state: float = 0.5) -> Observation:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    return Observation(
        stamp_ns=stamp_ns,
        task=task,
        images={"front": image},
        state=np.full(2, state, np.float32),
    )


class Toy:
    """Answers with the state it was shown; keeps what it was asked; fails or waits as told."""

    conditionings = ("inpaint",)

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.prefixes: list[ChunkPrefix | None] = []
        self.seeds: list[int] = []
        self.error: Exception | None = None
        self.entered, self.leave = threading.Semaphore(0), threading.Event()
        self.leave.set()

    def reset(self, seed: int = 0) -> None:
        self.seeds.append(seed)

    def infer(
        self, observation: Observation, /, *, prefix: ChunkPrefix | None = None
    ) -> ActionChunk:
        self.entered.release()
        assert self.leave.wait(30)
        self.seen.append(observation)
        self.prefixes.append(prefix)
        if self.error is not None:
            raise self.error
        return ActionChunk(
            stamp_ns=observation.stamp_ns,
            chunk_id=77,
            names=("a", "b"),
            dt_s=0.1,
            positions=np.tile(observation.state.astype(np.float64), (3, 1)),
        )


def description(policy_id: str = "one", **changes: Any) -> Description:
    return Description(
        **{
            "version": "0",
            "checkpoint": f"toy {policy_id}",
            "policy_id": policy_id,
            "quantization": "",
            "device": "cpu",
            "contract": None,
            **changes,
        }
    )


def serve(policy: Any, *, listen: Address = LOOPBACK, **options: Any) -> PolicyServer:
    options.setdefault("description", description())
    return PolicyServer(policy, listen=listen, **options)


def in_background(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """A running thread, and a list that gets what the function returned or raised."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results
