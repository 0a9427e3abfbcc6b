"""Samples per second of the training step, on random pixels of the policy's own shapes."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract_file import parse_contract
from training.cache import Cache, CacheManifest
from training.dataset import StepDataset
from training.finetune import Trainer
from training.recipe import TrainConfig


def samples_per_second(path: str, *, steps: int = 30, batch_size: int = 64) -> dict[str, float]:
    """Train `steps` steps after a warm-up of 5, in bf16 and in fp32."""
    results = {}
    for precision in ("bf16", "fp32"):
        policy = FastVLA.from_pretrained(path)
        config = TrainConfig(
            steps=5, batch_size=batch_size, precision=precision, checkpoint_every=10**9
        )
        with tempfile.TemporaryDirectory() as folder:
            dataset = StepDataset(
                random_cache(policy, frames=batch_size * 4),
                cameras=policy.config.cameras,
                chunk_size=policy.config.chunk_size,
                past_steps=len(policy.history_s),
                validation=0.0,
            )
            warm, measured = Path(folder, "warm"), Path(folder, "measured")
            warm.mkdir()
            measured.mkdir()
            Trainer(policy, dataset=dataset, config=config, out=warm).run()
            start = time.perf_counter()
            longer = dataclasses.replace(config, steps=steps)
            Trainer(policy, dataset=dataset, config=longer, out=measured).run()
            results[precision] = steps * batch_size / (time.perf_counter() - start)
    results["threads"] = float(torch.get_num_threads())
    return results


def random_cache(policy: FastVLA, *, frames: int) -> Cache:
    """A cache of one episode of noise, in memory."""
    random = np.random.default_rng(0)
    config = policy.config
    height, width = config.image_resolution
    shape = (frames, height, width, 3)
    contract = parse_contract(config.robot_contract)
    manifest = CacheManifest(
        contract=contract,
        rate_hz=1.0 / config.action_dt_s,
        frames=frames,
        instructions=("pick up the red cube",),
        entries=(),
    )
    return Cache(
        path=Path(),
        manifest=manifest,
        cameras=config.cameras,
        images={n: random.integers(0, 256, shape, dtype=np.uint8) for n in config.cameras},
        present=np.ones((frames, len(config.cameras)), bool),
        state=random.normal(size=(frames, len(config.state_names))).astype(np.float32),
        label=random.normal(size=(frames, len(config.action_names))).astype(np.float32),
        stamp_ns=np.arange(frames, dtype=np.int64),
        episode_start=np.zeros(frames, np.int64),
        episode_end=np.full(frames, frames, np.int64),
        instruction_id=np.zeros(frames, np.int32),
        instructions=list(manifest.instructions),
    )
