"""Visual token pruning and caches of a policy of the simulated robot: time saved, and success."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastvla_core.errors import FastVLAError
from fastvla_core.models.vision_tokens.memory import TokenCounts
from fastvla_core.models.vision_tokens.options import VisionTokens, keep_ratios
from fastvla_core.policy import FastVLA
from fastvla_core.sim.rollout import rollout
from fastvla_core.sim.tabletop import TabletopEnvironment
from fastvla_core.sim.tasks import FIRST_EVALUATION_SEED, TASKS, sample_task
from fastvla_core.types import ActionChunk, Observation
from training.bench.stopwatch import Stopwatch
from training.evaluate import EvaluationConfig, evaluate
from training.statistics import wilson_interval

_FIRST_SEED = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTiming:
    """Median times of one chunk [ms], and the shares of what was reused.

    Attributes:
        cpu_ms: Of the processor, all threads together: what other programs do hardly shows in it.
        saved: Share of the plain variant's `cpu_ms`.
    """

    variant: str
    p50_ms: float
    cpu_ms: float
    saved: float
    cameras_reused: float
    prefixes_reused: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSuccess:
    """Episodes that succeeded, per task, and the interval of the rate over all of them."""

    variant: str
    successes: Mapping[str, int]
    episodes: int
    success_rate: float
    interval: tuple[float, float]


def token_variants() -> dict[str, VisionTokens]:
    """The rows of the table; the first is the plain one."""
    variants = {"all tokens": VisionTokens()}
    for keep in (0.5, 0.375, 0.25):
        for pruning in ("adaptive", "uniform", "pool"):
            if keep in keep_ratios(pruning):
                variants[f"{pruning} {keep:g}"] = VisionTokens(pruning=pruning, keep=keep)
    variants["prefix reuse"] = VisionTokens(prefix_reuse=True)
    for levels in (0.0, 2.0, 4.0):
        variants[f"camera reuse {levels:g}"] = VisionTokens(camera_reuse=levels)
    variants["camera reuse 4, prefix"] = VisionTokens(camera_reuse=4.0, prefix_reuse=True)
    return variants


def time_tokens(path: str, *, rounds: int) -> list[TokenTiming]:
    """Time the variants in turn on what the plain policy sees while it works."""
    variants = token_variants()
    policies = {
        name: FastVLA.from_pretrained(path, vision_tokens=tokens)
        for name, tokens in variants.items()
    }
    warm_up, *episodes = recorded_episodes(policies["all tokens"], rounds)
    taken = {name: Stopwatch() for name in variants}
    counts = {name: TokenCounts() for name in variants}
    for episode in (warm_up, *episodes):
        for policy in policies.values():
            policy.reset()
        for observation in episode:
            for name, policy in policies.items():
                with taken[name].lap(counted=episode is not warm_up):
                    policy.infer(observation)
        for name, policy in policies.items():
            if policy.memory is not None:
                counts[name] += policy.memory.counts
    plain = taken["all tokens"].cpu_ms
    return [
        TokenTiming(
            variant=name,
            p50_ms=watch.p50_ms,
            cpu_ms=watch.cpu_ms,
            saved=1 - watch.cpu_ms / plain,
            cameras_reused=counts[name].cameras_reused / max(1, counts[name].cameras),
            prefixes_reused=counts[name].prefixes_reused / max(1, counts[name].prefixes),
        )
        for name, watch in taken.items()
    ]


def recorded_episodes(policy: FastVLA, count: int) -> list[list[Observation]]:
    """What a policy sees while it works on unseen scenes: at least `count` observations behind the
    first episode."""
    episodes: list[list[Observation]] = []
    with contextlib.closing(TabletopEnvironment()) as environment:
        while sum(map(len, episodes[1:])) < count:
            seed = _FIRST_SEED + len(episodes)
            seen: list[Observation] = []

            def act(observation: Observation, seen: list[Observation] = seen) -> ActionChunk:
                seen.append(observation)
                return policy.infer(observation)

            task = sample_task(TASKS[len(episodes) % len(TASKS)], seed)
            rollout(environment, task, seed, act, execute=policy.config.n_action_steps)
            episodes.append(seen)
    return episodes


def success_variants() -> dict[str, VisionTokens]:
    """The rows of the table of success: what is exact acts as the plain policy does."""
    return {
        name: tokens
        for name, tokens in token_variants().items()
        if not tokens.active or tokens.pruning != "none" or tokens.camera_reuse
    }


def measure_success(
    path: str, *, episodes: int, workers: int, rows: Sequence[str] = ()
) -> Iterator[TokenSuccess]:
    """Closed loop in the simulator, every variant on the same scenes; a row when it is known.

    Args:
        episodes: Per task and variant.
        rows: Names of the variants; all of them if empty.
    Raises:
        FastVLAError: there is no such variant.
    """
    seeds = FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + episodes
    variants = success_variants()
    for name in rows:
        if name not in variants:
            raise FastVLAError(f"there is no row '{name}'", mend=f"one of {', '.join(variants)}")
    for name in rows or variants:
        tokens = variants[name]
        successes = {}
        for task in TASKS:
            config = EvaluationConfig(
                policy=path, task=task, seeds=seeds, vision_tokens=tokens, workers=workers
            )
            successes[task] = evaluate(config).successes
        won, total = sum(successes.values()), episodes * len(TASKS)
        yield TokenSuccess(
            variant=name,
            successes=successes,
            episodes=total,
            success_rate=won / total,
            interval=wilson_interval(won, total),
        )


def success_line(row: TokenSuccess) -> str:
    """A row as text."""
    low, high = row.interval
    each = " ".join(f"{row.successes[task]:4d}" for task in TASKS)
    return f"  {row.variant:26} {each}  {row.success_rate:6.1%} ({low:.1%} - {high:.1%})"


def timing_line(row: TokenTiming) -> str:
    """A row as text."""
    times = f"{row.p50_ms:9.2f} ms, {row.cpu_ms:9.2f} ms of the processor"
    line = f"  {row.variant:26} {times}, {row.saved:+6.1%} saved"
    reused = f"{row.cameras_reused:.0%} of cameras, {row.prefixes_reused:.0%} of prefixes"
    return f"{line}  reused: {reused}" if row.cameras_reused or row.prefixes_reused else line
