"""Every policy runs and trains in bfloat16, and nearly as in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.policy import FastVLA

from .checkpoints import FLOW_POLICIES, POLICIES, VISUOMOTOR_POLICIES, copied

# Largest distance of bfloat16 targets from float32 ones, as a share of the targets' spread;
# random weights are worse than trained ones, and denoising adds up what every pass loses.
LIMITS = {"diffusion": 0.2, "diffusion_ddim": 0.2}
USUAL_LIMIT = 0.06
CONTINUOUS = (*FLOW_POLICIES, *VISUOMOTOR_POLICIES)


def training_batch(loaded: FastVLA) -> dict[str, torch.Tensor]:
    seen = loaded.processor.random_observation(0)
    rows = loaded.config.chunk_size + len(loaded.history_s)
    generator = torch.Generator().manual_seed(0)
    normalised = torch.randn(1, rows, 7, generator=generator).clamp(-1, 1)
    state = torch.from_numpy(seen.state)[None]
    return loaded.training_batch(
        images={name: torch.from_numpy(image)[None] for name, image in seen.images.items()},
        image_mask=torch.ones(1, len(loaded.config.cameras), dtype=torch.bool),
        state=state,
        actions=loaded.processor.absolute_actions(normalised, state),
        tasks=[seen.task],
    )


@pytest.mark.parametrize("policy", CONTINUOUS)
def test_weights_in_bfloat16_give_nearly_the_same_chunk(tmp_path: Path, policy: str):
    folder = copied(policy, tmp_path)
    full = FastVLA.from_pretrained(folder)
    small = FastVLA.from_pretrained(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in small.model.parameters()} == {torch.bfloat16}
    observations = [full.processor.random_observation(seed) for seed in range(2)]
    expected = np.stack([c.positions for c in full.infer_batch(observations)])
    found = np.stack([c.positions for c in small.infer_batch(observations)])
    error = np.abs(found - expected).max() / np.ptp(expected)
    assert 0 < error < LIMITS.get(policy, USUAL_LIMIT)


def test_pi0_fast_writes_the_same_tokens_in_bfloat16(tmp_path: Path):
    """The smallest lead of a token in the stored cases is 0.1 of a logit."""
    folder = copied("pi0_fast", tmp_path)
    full, small = (FastVLA.from_pretrained(folder, dtype=d) for d in (None, torch.bfloat16))
    seen = [full.processor.random_observation(0)]
    batch = full.processor.observation_batch(seen, device=torch.device("cpu"))
    with torch.inference_mode():
        expected, found = full.model(batch), small.model(batch)
    # Word for word up to where an instruction with random pixels stops being clear.
    assert torch.equal(found[:, :3], expected[:, :3])
    loss = {p: p.model.loss(training_batch(p))["loss"].item() for p in (full, small)}
    assert loss[small] == pytest.approx(loss[full], rel=0.05)


@pytest.mark.parametrize("policy", [*POLICIES, *VISUOMOTOR_POLICIES])
def test_training_in_bfloat16_has_nearly_the_same_loss_and_gradient(tmp_path: Path, policy: str):
    """As `precision: bf16` of a recipe does it: autocast over weights in float32."""
    loaded = FastVLA.from_pretrained(copied(policy, tmp_path))
    batch = training_batch(loaded)
    loaded.model.eval()
    found: list[tuple[float, torch.Tensor]] = []
    for enabled in (False, True):
        loaded.model.zero_grad()
        generator = torch.Generator().manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = loaded.model.loss(batch, generator=generator)["loss"]
        loss.backward()
        gradients = [p.grad.flatten() for p in loaded.model.parameters() if p.grad is not None]
        found.append((loss.item(), torch.cat(gradients)))
    (full_loss, full), (small_loss, small) = found
    assert small_loss == pytest.approx(full_loss, rel=0.05)
    assert torch.isfinite(small).all()
    assert torch.cosine_similarity(full, small, dim=0) > 0.95
