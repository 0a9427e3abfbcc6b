"""Flow policies that say targets relative to the state: in use, in training, and with a plan."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.policy import FastVLA
from fastvla_core.types import ChunkPrefix

from .checkpoints import FLOW_POLICIES, change_json, change_step, copied

NAMES = [f"joint{i}" for i in range(6)] + ["left_Gripper"]
EACH = pytest.mark.parametrize("policy", FLOW_POLICIES)


def both(policy: str, tmp_path: Path) -> tuple[FastVLA, FastVLA]:
    """The same weights, absolute and relative (but for the gripper)."""
    folder = copied(policy, tmp_path)
    change_json(folder / "config.json", num_steps=10, num_inference_steps=10)
    plain = FastVLA.from_pretrained(folder)
    change_json(
        folder / "config.json",
        use_relative_actions=True,
        relative_exclude_joints=["gripper"],
        action_feature_names=NAMES,
    )
    options = {"enabled": True, "exclude_joints": ["gripper"], "action_names": NAMES}
    # SmolVLA's usual files have no such steps.
    _ensure_steps(folder)
    change_step(folder, "policy_preprocessor", "relative_actions_processor", **options)
    change_step(folder, "policy_postprocessor", "absolute_actions_processor", enabled=True)
    return plain, FastVLA.from_pretrained(folder)


def _ensure_steps(folder: Path) -> None:
    for file, name, place in (
        ("policy_preprocessor", "relative_actions_processor", 2),
        ("policy_postprocessor", "absolute_actions_processor", 1),
    ):
        path = folder / f"{file}.json"
        data = json.loads(path.read_text())
        if all(step["registry_name"] != name for step in data["steps"]):
            data["steps"].insert(place, {"registry_name": name, "config": {}})
            path.write_text(json.dumps(data))


@EACH
def test_chunks_are_the_state_and_what_was_said_except_for_named_joints(
    tmp_path: Path, policy: str
):
    plain, relative = both(policy, tmp_path)
    assert relative.config.relative_joints == tuple(NAMES[:6])
    seen = [plain.processor.random_observation(seed) for seed in (1, 2)]
    pairs = zip(relative.infer_batch(seen), plain.infer_batch(seen), seen, strict=True)
    for found, said, observation in pairs:
        difference = found.positions - said.positions
        np.testing.assert_allclose(
            difference[:, :6], observation.state[None, :6].repeat(10, 0), atol=1e-5
        )
        np.testing.assert_allclose(difference[:, 6], 0, atol=1e-6)


@EACH
def test_training_learns_what_is_left_of_a_target_behind_the_state(tmp_path: Path, policy: str):
    plain, relative = both(policy, tmp_path)
    seen = plain.processor.random_observation(0)
    left = torch.randn(1, 10, 7, generator=torch.Generator().manual_seed(0))
    state = torch.from_numpy(seen.state)[None]
    offset = torch.cat([state[:, :6], torch.zeros(1, 1)], dim=1)[:, None]
    losses = []
    for loaded, actions in ((plain, left), (relative, left + offset)):
        batch = loaded.training_batch(
            images={name: torch.from_numpy(image)[None] for name, image in seen.images.items()},
            image_mask=torch.ones(1, len(loaded.config.cameras), dtype=torch.bool),
            state=state,
            actions=actions,
            tasks=[seen.task],
        )
        losses.append(loaded.model.loss(batch, generator=torch.Generator().manual_seed(1))["loss"])
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)


@EACH
def test_a_plan_is_met_in_the_frame_of_the_new_state(tmp_path: Path, policy: str):
    """The robot moves between two chunks; what was planned stays where it was."""
    _, loaded = both(policy, tmp_path)
    before = loaded.processor.random_observation(0)
    after = dataclasses.replace(before, stamp_ns=1, state=before.state + np.float32(0.2))
    planned = loaded.infer(before).positions + 0.2
    prefix = ChunkPrefix(
        names=loaded.config.action_names, positions=planned[:6], frozen=3, conditioning="inpaint"
    )
    told = loaded.processor.flow_prefix([prefix], [after], device=loaded.device)
    back = loaded.processor.targets(told.actions_bta[..., :7], [after])[0]
    np.testing.assert_allclose(back[:6], planned[:6], atol=1e-5)
    free, guided = loaded.infer(after), loaded.infer(after, prefix=prefix)
    missed, met = (np.abs(c.positions[:3] - planned[:3]).mean() for c in (free, guided))
    assert met < 0.6 * missed
