"""Pruning and reuse in whole policies: exact where they claim to be, forgotten at a new goal."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvla_core.errors import CheckpointError, PolicyError
from fastvla_core.models.vision_tokens.layout import Kept
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.policy import FastVLA
from fastvla_core.types import ChunkPrefix, Observation

from ..lerobot.checkpoints import FLOW_POLICIES, copied
from ..tiny import TEXTS, observation, tiny_config, tiny_policy, vit_vision

STEMS: tuple[dict[str, Any], ...] = ({}, {"vision": vit_vision()})
WAYS = [("adaptive", 0.5), ("adaptive", 0.25), ("uniform", 0.25), ("pool", 0.5)]


def saved(tmp_path: Path, **others: Any) -> Path:
    tiny_policy(**others).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def folder_of(kind: str, tmp_path: Path) -> Path:
    return saved(tmp_path) if kind == "fastvla_flow" else copied(kind, tmp_path)


def moved(seen: Observation, *, state: float = 0.0, camera: str = "") -> Observation:
    """The same scene a little later: another state, another image of one camera."""
    images = {name: image.copy() for name, image in seen.images.items()}
    if camera:
        images[camera][:8, :8] += 60
    changed = (seen.state + state).astype(np.float32)
    return dataclasses.replace(seen, images=images, state=changed, stamp_ns=seen.stamp_ns + 1)


ALL = ("fastvla_flow", *FLOW_POLICIES)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(("pruning", "keep"), WAYS)
def test_a_policy_acts_on_a_part_of_its_visual_tokens(tmp_path: Path, kind, pruning, keep):
    folder = folder_of(kind, tmp_path)
    plain = FastVLA.from_pretrained(folder)
    seen = plain.processor.random_observation(0)
    less = FastVLA.from_pretrained(folder, vision_tokens=VisionTokens(pruning=pruning, keep=keep))
    chunks = [less.infer(moved(seen, state=0.01 * k)).positions for k in range(3)]
    expected = [plain.infer(moved(seen, state=0.01 * k)).positions for k in range(3)]
    assert all(np.isfinite(chunk).all() for chunk in chunks)
    # Adaptive pruning looks at everything once, so that it knows what the actions look at.
    assert np.allclose(chunks[0], expected[0], atol=1e-6) == (pruning == "adaptive")
    assert not np.allclose(chunks[2], expected[2], atol=1e-6)


@pytest.mark.parametrize("others", STEMS)
def test_leaving_a_token_out_is_the_same_as_hiding_it(others: dict[str, Any]):
    policy = tiny_policy(**others)
    model = policy.model.eval()
    batch = policy.processor.observation_batch([observation()], device=policy.device)
    noisy, time = torch.randn(1, 1, 4, 3), torch.rand(1, 1, 1)
    with torch.no_grad():
        _, prefix = model.observed(batch, VisionTokens(pruning="uniform", keep=0.25))
        x, mask = model.prefix.embed(batch)
        hidden = torch.zeros_like(mask).scatter(1, prefix.kept.index_bq, True) & mask
        same = model.prefix.read(x, hidden)
        assert len(prefix.mask_bp[0]) < len(mask[0])
        torch.testing.assert_close(
            model.expert(noisy, time, prefix), model.expert(noisy, time, same)
        )


@pytest.mark.parametrize("kind", FLOW_POLICIES)
def test_the_kept_tokens_of_foreign_policies_keep_their_positions(tmp_path: Path, kind: str):
    policy = FastVLA.from_pretrained(copied(kind, tmp_path))
    model, seen = policy.model, policy.processor.random_observation(0)
    batch = policy.processor.observation_batch([seen], device=policy.device)
    with torch.no_grad():
        whole = model.prefix_tokens(batch)
        _, pruned = model.observed(batch, VisionTokens(pruning="uniform", keep=0.25))
        hidden = torch.zeros_like(whole.mask_bp).scatter(1, pruned.kept.index_bq, True)
        everything = Kept(torch.arange(whole.x_bpw.shape[1])[None], whole.mask_bp)
        masked = dataclasses.replace(whole, mask_bp=hidden & whole.mask_bp, kept=everything)
        same = model.read_prefix(masked)
        noisy, time = torch.randn(1, *policy.config.noise_shape), torch.rand(1)
        torch.testing.assert_close(
            model.velocity(noisy, time, pruned, batch), model.velocity(noisy, time, same, batch)
        )


@pytest.mark.parametrize("kind", ALL)
def test_reuse_of_equal_images_changes_no_bit(tmp_path: Path, kind: str):
    """Against a policy that reuses nothing, but computes its cameras one by one, too."""
    folder = folder_of(kind, tmp_path)
    tokens = VisionTokens(camera_reuse=0.0)
    reusing = FastVLA.from_pretrained(folder, vision_tokens=tokens)
    fresh = FastVLA.from_pretrained(folder, vision_tokens=tokens)
    plain = FastVLA.from_pretrained(folder)
    camera = reusing.config.cameras[0]
    first = plain.processor.random_observation(0)
    second = moved(first, state=0.1)
    third = moved(second, camera=camera)
    for seen in (first, second, third):
        fresh.reset()
        ours, theirs, usual = (p.infer(seen).positions for p in (reusing, fresh, plain))
        assert np.array_equal(ours, theirs)
        assert np.allclose(ours, usual, atol=1e-5)
    counts = reusing.memory.counts
    assert counts.cameras_reused == 2 * counts.cameras / 3 - 1


def test_reuse_of_equal_images_in_our_own_policy_is_the_plain_policy_bit_for_bit(tmp_path: Path):
    folder = saved(tmp_path)
    reusing = FastVLA.from_pretrained(folder, vision_tokens=VisionTokens(camera_reuse=0.0))
    plain = FastVLA.from_pretrained(folder)
    for seen in (observation(), moved(observation(), state=0.1)):
        assert np.array_equal(reusing.infer(seen).positions, plain.infer(seen).positions)
    assert reusing.memory.counts.cameras_reused == 2


@pytest.mark.parametrize("kind", ALL)
def test_a_known_prefix_gives_what_reading_it_again_gives(tmp_path: Path, kind: str):
    folder = folder_of(kind, tmp_path)
    reusing = FastVLA.from_pretrained(folder, vision_tokens=VisionTokens(prefix_reuse=True))
    plain = FastVLA.from_pretrained(folder)
    seen = plain.processor.random_observation(0)
    again = dataclasses.replace(seen, stamp_ns=7)
    for shown in (seen, again):
        chunks = [policy.infer(shown).positions for policy in (reusing, plain)]
        # The rows that SmolVLA's state is read in are computed alone: its last bit may differ.
        assert np.allclose(*chunks, rtol=0, atol=1e-6 if kind == "smolvla" else 0)
    assert reusing.memory.counts.prefixes_reused == 1
    other = moved(again, state=0.3, camera="")
    chunks = [policy.infer(other).positions for policy in (reusing, plain)]
    assert np.allclose(*chunks, rtol=0, atol=1e-6)
    # Only where the state stands behind images and words can it change without them.
    behind = kind in ("smolvla", "pi0")
    assert reusing.memory.counts.prefixes_reused == (2 if behind else 1)
    changed = moved(other, camera=plain.config.cameras[0])
    chunks = [policy.infer(changed).positions for policy in (reusing, plain)]
    assert np.allclose(*chunks, rtol=0, atol=1e-6)
    assert reusing.memory.counts.prefixes_reused == (2 if behind else 1)


@pytest.mark.parametrize(
    "tokens",
    [VisionTokens(pruning="adaptive", keep=0.25), VisionTokens(camera_reuse=1e9)],
    ids=["adaptive", "reuse"],
)
def test_a_new_goal_remembers_nothing(tmp_path: Path, tokens: VisionTokens):
    policy = FastVLA.from_pretrained(saved(tmp_path), vision_tokens=tokens)
    fresh = FastVLA.from_pretrained(saved(tmp_path), vision_tokens=tokens)
    policy.infer(observation(1))
    remembering = policy.infer(observation(2)).positions
    assert not np.array_equal(remembering, fresh.infer(observation(2)).positions)
    policy.reset()
    fresh.reset()
    expected = fresh.infer(observation(3)).positions
    assert np.array_equal(policy.infer(observation(3)).positions, expected)
    other = observation(4, task=TEXTS[1])
    fresh.reset()
    assert np.array_equal(policy.infer(other).positions, fresh.infer(other).positions)


def test_a_batch_remembers_nothing(tmp_path: Path):
    tokens = VisionTokens(pruning="adaptive", keep=0.25)
    policy = FastVLA.from_pretrained(saved(tmp_path), vision_tokens=tokens)
    before = policy.infer_batch([observation(1), observation(2)])
    policy.infer(observation(3))
    after = policy.infer_batch([observation(1), observation(2)])
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one.positions, other.positions)


@pytest.mark.parametrize("kind", ALL)
def test_a_plan_can_be_continued_with_what_is_remembered(tmp_path: Path, kind: str):
    tokens = VisionTokens(camera_reuse=0.0, prefix_reuse=True, pruning="adaptive")
    policy = FastVLA.from_pretrained(folder_of(kind, tmp_path), vision_tokens=tokens)
    seen = policy.processor.random_observation(0)
    free = policy.infer(seen)
    policy.infer(moved(seen))
    prefix = ChunkPrefix(
        names=free.names, positions=free.positions + 0.3, frozen=2, conditioning="inpaint"
    )
    guided = policy.infer(moved(seen), prefix=prefix).positions
    assert np.isfinite(guided).all()


def test_what_the_actions_look_at_is_a_share_of_the_real_tokens():
    policy = tiny_policy()
    batch = policy.processor.observation_batch([observation(missing="wrist")], device=policy.device)
    model = policy.model.eval()
    watch = model.watch()
    with torch.no_grad():
        prefix = model.prefix(batch)
        with watch:
            model.expert(torch.randn(1, 2, 4, 3), torch.rand(1, 2, 1), prefix)
        model.expert(torch.randn(1, 2, 4, 3), torch.rand(1, 2, 1), prefix)
    attention = watch.attention_bq
    assert attention.shape == prefix.mask_bp.shape
    assert float(attention.sum()) == pytest.approx(1.0)
    assert (attention[~prefix.mask_bp] == 0).all()
    assert (attention[prefix.mask_bp] > 0).all()


def test_a_compiled_expert_is_watched_too(tmp_path: Path):
    tokens = VisionTokens(pruning="adaptive", keep=0.25)
    policies = [FastVLA.from_pretrained(saved(tmp_path), vision_tokens=tokens) for _ in range(2)]
    policies[0].model.expert.compile(backend="eager", dynamic=False)
    for index in range(3):
        one, other = (policy.infer(observation(index)).positions for policy in policies)
        assert np.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "tokens", "reason"),
    [
        ("pi0_fast", VisionTokens(camera_reuse=0.0), "can neither prune"),
        ("smolvla", VisionTokens(pruning="learned"), "cannot prune its visual tokens by 'learned'"),
        ("fastvla_flow", VisionTokens(pruning="learned"), "it can by: adaptive, uniform, pool"),
    ],
)
def test_what_a_policy_cannot_do_is_refused(tmp_path: Path, kind, tokens, reason):
    with pytest.raises(PolicyError, match=reason):
        FastVLA.from_pretrained(folder_of(kind, tmp_path), vision_tokens=tokens)


def test_a_policy_that_can_do_nothing_of_it_takes_the_default(tmp_path: Path):
    policy = FastVLA.from_pretrained(copied("pi0_fast", tmp_path), vision_tokens=VisionTokens())
    assert not policy.vision_tokens.active


def test_the_checkpoint_says_how_it_was_trained_to_prune(tmp_path: Path):
    tokens = VisionTokens(pruning="learned", keep=0.25, camera_reuse=0.0)
    folder = saved(tmp_path, vision_tokens=tokens)
    policy = FastVLA.from_pretrained(folder)
    assert policy.vision_tokens == tokens
    assert "learned" in policy.model.prunings
    whole = FastVLA.from_pretrained(folder, vision_tokens=VisionTokens())
    assert not np.allclose(*(p.infer(observation()).positions for p in (policy, whole)))


def test_a_checkpoint_from_before_there_were_options_keeps_all_tokens(tmp_path: Path):
    folder = saved(tmp_path)
    data = json.loads((folder / "config.json").read_text())
    del data["vision_tokens"]
    (folder / "config.json").write_text(json.dumps(data))
    assert FastVLA.from_pretrained(folder).config == tiny_config()


def test_a_stored_share_that_cannot_be_is_named_with_its_file(tmp_path: Path):
    folder = saved(tmp_path)
    data = json.loads((folder / "config.json").read_text())
    data["vision_tokens"] = {"pruning": "uniform", "keep": 0.1}
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"config.json.*cannot keep 0.1"):
        FastVLA.from_pretrained(folder)
