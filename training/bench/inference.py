"""One chunk per call: full precision, NF4, 8-bit and compiled, in turn on the same observations."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastvla_core.errors import FastVLAError
from fastvla_core.policy import FastVLA
from fastvla_core.types import Observation

VARIANTS = ("fp32", "nf4", "int8", "compiled")


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceTiming:
    """Latencies of one variant [ms], its memory [MB] and its distance from full precision.

    Attributes:
        weight_mb: Bytes of parameters and buffers.
        peak_rss_mb: Largest resident memory of a process that only loads and infers.
        worst_cosine: Smallest cosine between its action chunks and those of fp32, over all
            observations; actions relative to the state where the policy works so.
    """

    variant: str
    p50_ms: float
    p99_ms: float
    weight_mb: float
    peak_rss_mb: float
    worst_cosine: float


def simulator_observations(count: int, *, cameras: Sequence[str]) -> list[Observation]:
    """Observations of unseen scenes, one per seed and instruction."""
    from fastvla_core.sim.sim import TabletopSim
    from fastvla_core.sim.tabletop import observe
    from fastvla_core.sim.tasks import TASKS, sample_task

    sim, observations = TabletopSim(), []
    for index in range(count):
        seed = 20_000_000 + index
        sim.reset(seed)
        observations.append(observe(sim, sample_task(TASKS[index % len(TASKS)], seed)))
    sim.close()
    return observations


def load_variant(path: str, variant: str) -> FastVLA:
    """The policy of a row of the table."""
    if variant in ("nf4", "int8"):
        return FastVLA.from_pretrained(path, quantization=variant)
    policy = FastVLA.from_pretrained(path)
    if variant == "compiled":
        policy.compile()
    return policy


def time_variants(
    path: str, *, rounds: int = 300, threads: int = 2, variants: Sequence[str] = VARIANTS
) -> list[InferenceTiming]:
    """Time the variants in turn, one call each per round, so that drift hits all alike."""
    import torch

    torch.set_num_threads(threads)
    policies = {name: load_variant(path, name) for name in variants}
    reference = FastVLA.from_pretrained(path)
    observations = simulator_observations(50, cameras=reference.config.cameras)
    for policy in policies.values():
        for observation in observations[:10]:
            policy.infer(observation)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(rounds):
        observation = observations[index % len(observations)]
        for name, policy in policies.items():
            start = time.perf_counter()
            policy.infer(observation)
            times[name].append((time.perf_counter() - start) * 1e3)
    return [
        InferenceTiming(
            variant=name,
            p50_ms=float(np.percentile(times[name], 50)),
            p99_ms=float(np.percentile(times[name], 99)),
            weight_mb=weight_megabytes(policies[name]),
            peak_rss_mb=peak_memory(path, name),
            worst_cosine=worst_cosine(policies[name], reference, observations),
        )
        for name in variants
    ]


def weight_megabytes(policy: FastVLA) -> float:
    """Bytes of parameters and buffers, in MB of 10^6."""
    tensors = [*policy.model.parameters(), *policy.model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors) / 1e6


def worst_cosine(policy: FastVLA, reference: FastVLA, observations: list[Observation]) -> float:
    """Smallest cosine between the two policies' chunks, as motion away from the present state."""
    worst = 1.0
    for observation in observations:
        a, b = (p.infer(observation).positions - observation.state for p in (policy, reference))
        cosine = float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))
        worst = min(worst, cosine)
    return worst


def peak_memory(path: str, variant: str) -> float:
    """Peak resident memory [MB] of a process of its own that loads the policy and infers."""
    command = [sys.executable, "-m", "training.bench.inference", path, variant]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FastVLAError(f"measuring memory of {variant} failed: {done.stderr.strip()[-300:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["peak_rss_mb"])


def _measure_own_memory(path: str, variant: str) -> None:
    policy = load_variant(path, variant)
    size = policy.config.image_resolution
    state = np.zeros(len(policy.config.state_names), np.float32)
    images = {name: np.zeros((*size, 3), np.uint8) for name in policy.config.cameras}
    for stamp in range(5):
        policy.infer(Observation(stamp_ns=stamp, task="pick", images=images, state=state))
    # Not getrusage: its peak begins with the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"peak_rss_mb": int(status["VmHWM"].split()[0]) * 1.024e-3}))


if __name__ == "__main__":
    _measure_own_memory(sys.argv[1], sys.argv[2])
