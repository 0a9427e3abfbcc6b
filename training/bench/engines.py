"""Engines on one policy, in turn on the same observations: wall time, processor time, agreement.

    python -m training.bench.engines --policy nano --threads 1 --quantization nf4

Processor time is what tells engines apart on a machine that does other things, too.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastvla_core.engines.making import obstacles
from fastvla_core.engines.memory import peak_memory, reset_peak_memory
from fastvla_core.engines.names import ENGINES, EngineName
from fastvla_core.policy import FastVLA
from fastvla_core.types import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTiming:
    """One engine's requests, preprocessing included.

    Attributes:
        ready_s: Processor time of making it ready [s]; what was converted before is not again.
        p50_ms, p99_ms: Wall time [ms].
        cpu_ms: Mean processor time of all threads [ms].
        max_error: Largest difference of a target from the eager network's [rad or m].
        worst_cosine: Smallest cosine of a chunk's motion with the eager network's.
    """

    engine: EngineName
    ready_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    max_error: float
    worst_cosine: float


def time_engines(
    load: Sequence[tuple[EngineName, FastVLA, float]],
    *,
    reference: FastVLA,
    observations: Sequence[Observation],
    rounds: int,
) -> list[EngineTiming]:
    """Time policies that are the same but for their engine.

    Args:
        load: Each engine's name, its policy, and how long it took to be ready [s].
    """
    expected = [reference.infer(o).positions for o in observations]
    distances = {
        name: [
            _distance(policy.infer(o).positions, wanted, o)
            for o, wanted in zip(observations, expected, strict=True)
        ]
        for name, policy, _ in load
    }
    wall: dict[str, list[float]] = {name: [] for name, _, _ in load}
    processor = dict.fromkeys(wall, 0.0)
    for index in range(rounds):
        observation = observations[index % len(observations)]
        for name, policy, _ in load:
            start, busy = time.perf_counter(), time.process_time()
            policy.infer(observation)
            processor[name] += time.process_time() - busy
            wall[name].append((time.perf_counter() - start) * 1e3)
    return [
        EngineTiming(
            engine=name,
            ready_s=ready_s,
            p50_ms=float(np.percentile(wall[name], 50)),
            p99_ms=float(np.percentile(wall[name], 99)),
            cpu_ms=processor[name] / rounds * 1e3,
            max_error=max(error for error, _ in distances[name]),
            worst_cosine=min(cosine for _, cosine in distances[name]),
        )
        for name, _, ready_s in load
    ]


def _distance(
    found: np.ndarray, expected: np.ndarray, observation: Observation
) -> tuple[float, float]:
    state = np.resize(observation.state, expected.shape[-1])
    a, b = found - state, expected - state
    cosine = float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))
    return float(np.abs(found - expected).max()), cosine


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="nano", help="checkpoint folder or shipped name")
    parser.add_argument("--quantization", choices=["nf4", "int8"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    def loaded() -> FastVLA:
        return FastVLA.from_pretrained(
            args.policy, quantization=args.quantization, device=args.device
        )

    reference, ready = loaded(), []
    blocked = obstacles(reference.model)
    reset_peak_memory(reference.device)
    for name in args.engines:
        if (obstacle := blocked[name]) is not None:
            print(f"left out: {obstacle.message}")
            continue
        policy, busy = loaded(), time.process_time()
        policy.use_engine(name)
        ready.append((name, policy, time.process_time() - busy))
    observations = [reference.processor.random_observation(seed) for seed in range(20)]
    rows = time_engines(ready, reference=reference, observations=observations, rounds=args.rounds)
    names = [field.name for field in dataclasses.fields(EngineTiming)]
    print("".join(f"{name:>14}" for name in names))
    for row in rows:
        values = dataclasses.astuple(row)
        print("".join(f"{v:>14}" if isinstance(v, str) else f"{v:14.5g}" for v in values))
    print(f"all of them in one process: {peak_memory(reference.device)}")


if __name__ == "__main__":
    main()
