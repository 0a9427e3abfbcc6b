"""A composed policy through the front door: files, bits, types, plans, gradients, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvla_core.errors import CheckpointError, ObservationError, PolicyError
from fastvla_core.models.adapters import add_adapters
from fastvla_core.models.backbones.vlm.interface import VLMBackbone
from fastvla_core.models.describe import describe
from fastvla_core.models.heads.ngram_draft import NgramDraft
from fastvla_core.models.lerobot.files import LocalFiles
from fastvla_core.models.lora import LoraConfig
from fastvla_core.models.policies.vla.model import VLA
from fastvla_core.policy import FastVLA
from fastvla_core.quant import quantized_layers
from fastvla_core.types import ChunkPrefix, Conditioning

from ..tiny import NAMES, TEXTS
from .tiny import Backbones, batch, head, loss, observation, vla_policy

JOINT = head("flow", attention="joint")
CROSS = {"type": "cross_attention", "depth": 1, "heads": 4}


@pytest.fixture(scope="module")
def smolvlm(backbones: Backbones) -> Path:
    return backbones("smolvlm")


@pytest.fixture
def saved(smolvlm: Path, tmp_path: Path) -> Path:
    vla_policy(smolvlm, head=JOINT).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_the_backbone_in_a_checkpoint_is_one_of_its_own(saved: Path):
    policy = FastVLA.from_pretrained(saved)
    alone = VLMBackbone.from_pretrained(saved / "backbone")
    for name, weight in alone.state_dict().items():
        assert torch.equal(weight, policy.model.backbone.state_dict()[name]), name
    names = {path.name for path in saved.iterdir()}
    assert {"config.json", "model.safetensors", "policy_preprocessor.json"} <= names


def test_saving_again_changes_no_weight(saved: Path, tmp_path: Path):
    policy = FastVLA.from_pretrained(saved)
    policy.save_pretrained(tmp_path / "again")
    for name in ("model.safetensors", "backbone/model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes(), name


def test_new_policies_differ_by_their_seed_in_the_head_alone(smolvlm: Path):
    one, same, other = (vla_policy(smolvlm, seed=seed).model for seed in (0, 0, 1))
    weight = "reader.state_in.weight"
    assert torch.equal(one.head.get_parameter(weight), same.head.get_parameter(weight))
    assert not torch.equal(one.head.get_parameter(weight), other.head.get_parameter(weight))
    for a, b in zip(one.backbone.parameters(), other.backbone.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("mode", ["nf4", "int8"])
@pytest.mark.parametrize("fusion", [{"type": "tokens"}, CROSS])
def test_quantised_policies_come_near_and_come_back(mode: Any, fusion, smolvlm, tmp_path: Path):
    policy = vla_policy(smolvlm, head=JOINT, fusion=fusion)
    policy.save_pretrained(tmp_path / "full")
    packed = FastVLA.from_pretrained(tmp_path / "full", quantization=mode)
    layers = quantized_layers(packed.model)
    assert any(name.startswith("backbone.network.model.text_model") for name in layers)
    assert any(name.startswith("head.reader.layers") for name in layers)
    assert not any("lm_head" in name or "action_out" in name for name in layers)
    chunk = packed.infer(observation())
    error = np.abs(chunk.positions - policy.infer(observation()).positions).max()
    assert error < (0.5 if mode == "nf4" else 0.05)
    packed.save_pretrained(tmp_path / "packed")
    again = FastVLA.from_pretrained(tmp_path / "packed")
    assert again.quantization == mode
    np.testing.assert_array_equal(again.infer(observation()).positions, chunk.positions)


def test_bf16_comes_near_fp32(saved: Path):
    full = FastVLA.from_pretrained(saved)
    half = FastVLA.from_pretrained(saved, dtype=torch.bfloat16)
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    plain, coarse = full.infer(observation()).positions, half.infer(observation()).positions
    assert 0 < np.abs(plain - coarse).max() < 0.1
    given = batch(full)
    exact = loss(full, given)
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss(full, given)
    cast.backward()
    torch.testing.assert_close(cast, exact, rtol=0.05, atol=0.0)


def set_output(model: VLA, value: float) -> None:
    """Make a regression head say one normalised number."""
    output: Any = model.get_submodule("head.chunk.mlp.output")
    torch.nn.init.zeros_(output.weight)
    torch.nn.init.constant_(output.bias, value)


def test_actions_are_relative_to_the_state_but_for_the_gripper(smolvlm: Path):
    policy = vla_policy(smolvlm, head=head("regression"))
    set_output(policy.model, 1.0)
    seen = observation()
    scale = policy.processor.statistics.action
    expected = (scale.mean + scale.std).numpy() + np.array([*seen.state[:2], 0.0])
    np.testing.assert_allclose(policy.infer(seen).positions, expected, rtol=1e-5)
    absolute = vla_policy(smolvlm, head=head("regression"), use_relative_actions=False)
    set_output(absolute.model, 1.0)
    np.testing.assert_allclose(
        absolute.infer(seen).positions, (scale.mean + scale.std).numpy(), rtol=1e-5
    )


def prefix(policy: FastVLA, conditioning: Conditioning) -> ChunkPrefix:
    rows = policy.infer(observation(5)).positions
    return ChunkPrefix(names=NAMES, positions=rows[:3], frozen=2, conditioning=conditioning)


def test_a_guided_chunk_comes_nearer_to_the_plan(saved: Path):
    policy = FastVLA.from_pretrained(saved)
    plan = prefix(policy, "inpaint")
    free = policy.infer(observation()).positions[:2] - plan.positions[:2]
    guided = policy.infer(observation(), prefix=plan).positions[:2] - plan.positions[:2]
    assert np.abs(guided).mean() < 0.5 * np.abs(free).mean()


def test_a_trained_policy_goes_on_exactly_where_the_plan_ends(smolvlm: Path):
    policy = vla_policy(smolvlm, head=JOINT, max_prefix_steps=2)
    plan = prefix(policy, "trained")
    found = policy.infer(observation(), prefix=plan).positions
    np.testing.assert_allclose(found[:2], plan.positions[:2], atol=1e-4)
    assert np.abs(found[2] - plan.positions[2]).max() > 1e-2
    loss(policy, batch(policy)).backward()


def test_heads_that_are_no_flows_say_that_they_cannot_continue_plans(smolvlm: Path):
    policy = vla_policy(smolvlm, head=head("regression"))
    assert policy.conditionings == ()
    with pytest.raises(PolicyError, match="cannot continue a plan by 'inpaint'"):
        policy.infer(observation(), prefix=prefix(policy, "inpaint"))


def backbone_gradient(policy: FastVLA) -> float:
    loss(policy, batch(policy)).backward()
    return sum(
        float(p.grad.abs().sum()) for p in policy.model.backbone.parameters() if p.grad is not None
    )


def test_insulated_knowledge_is_changed_by_the_auxiliary_head_alone(smolvlm: Path):
    both = {"head": JOINT, "auxiliary_head": head("bins"), "fusion": CROSS}
    insulated = vla_policy(smolvlm, knowledge_insulation=True, **both)
    open_ = vla_policy(smolvlm, **both)
    assert backbone_gradient(insulated) > 0
    for policy in (insulated, open_):
        policy.model.zero_grad()
        # Then the auxiliary head's loss hangs on its last bias alone.
        torch.nn.init.zeros_(policy.model.get_parameter("auxiliary.chunk.mlp.output.weight"))
    assert backbone_gradient(insulated) == 0
    assert all(p.grad is None or not p.grad.any() for p in insulated.model.fusion.parameters())
    assert backbone_gradient(open_) > 0


def test_the_losses_of_both_heads_add_up_and_only_the_first_acts(smolvlm: Path):
    alone = vla_policy(smolvlm, head=JOINT)
    both = vla_policy(smolvlm, head=JOINT, auxiliary_head=head("bins"))
    both.model.head.load_state_dict(alone.model.head.state_dict())
    given, draws = batch(both), torch.Generator()
    found = both.model.loss(given, generator=draws.manual_seed(0))
    expected = alone.model.loss(given, generator=draws.manual_seed(0))["loss"]
    torch.testing.assert_close(found["loss"], expected + found["auxiliary_loss"])
    np.testing.assert_array_equal(
        both.infer(observation()).positions, alone.infer(observation()).positions
    )


def test_frozen_parts_stay_frozen_when_loaded(smolvlm: Path, tmp_path: Path):
    vla_policy(smolvlm, frozen=("vision", "projector")).save_pretrained(tmp_path / "p")
    model = FastVLA.from_pretrained(tmp_path / "p").model
    trained = {part: any(p.requires_grad for p in model.backbone.parameters_of(part))
               for part in ("vision", "projector", "language")}  # fmt: skip
    assert trained == {"vision": False, "projector": False, "language": True}
    assert all(p.requires_grad for p in model.own_parts.parameters())


def test_the_backbone_s_dropout_stays_off(smolvlm: Path):
    model = vla_policy(smolvlm).model.train()
    assert model.head.training
    assert not any(module.training for module in model.backbone.network.modules())


def test_the_dropout_of_the_backbone_s_adapters_is_on_while_it_is_trained(smolvlm: Path):
    model = vla_policy(smolvlm).model
    add_adapters(model, LoraConfig(rank=2, dropout=0.5, modules=("backbone.*.q_proj",)))
    network = model.train().backbone.network
    training = {name for name, module in network.named_modules() if module.training}
    assert training
    assert all(".lora_dropout" in name for name in training)
    assert not any(module.training for module in model.eval().modules())


def test_fused_words_hold_what_the_cameras_show(smolvlm: Path):
    policy = vla_policy(smolvlm, fusion=CROSS)
    given = batch(policy)
    prefix = policy.model.prefix(given)
    assert prefix.image_spans == ()
    other = policy.model.prefix({**given, "images": given["images"].flip(-1)})
    real = prefix.mask_bp
    assert not torch.allclose(prefix.embeds_bpd[real], other.embeds_bpd[real])
    # Words of an observation without any camera are still numbers.
    blind = policy.model.prefix({**given, "image_mask": torch.zeros(2, 2, dtype=torch.bool)})
    assert bool(blind.embeds_bpd.isfinite().all())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_the_compiled_policy_gives_the_same_actions(smolvlm: Path):
    policy = vla_policy(smolvlm, head=head("flow", depth=1))
    expected = policy.infer(observation()).positions
    policy.compile()
    np.testing.assert_allclose(policy.infer(observation()).positions, expected, atol=1e-4)


def test_other_weights_keep_what_no_state_holds(smolvlm: Path):
    one, other = (vla_policy(smolvlm, head=JOINT, seed=seed) for seed in (0, 1))
    found = one.with_weights(other.model.state_dict())
    found.reset(1)
    np.testing.assert_array_equal(
        found.infer(observation()).positions, other.infer(observation()).positions
    )


def test_longer_prefixes_are_trained_for_by_a_changed_config(saved: Path):
    policy = FastVLA.from_pretrained(saved).reconfigured(max_prefix_steps=2)
    assert policy.conditionings == ("inpaint", "trained")
    np.testing.assert_array_equal(
        policy.infer(observation()).positions,
        FastVLA.from_pretrained(saved).infer(observation()).positions,
    )


def test_a_fast_policy_keeps_its_tokenizer_and_its_draft(smolvlm: Path, tmp_path: Path):
    policy = vla_policy(smolvlm, head=head("fast", folder=tmp_path))
    plain = policy.infer(observation()).positions
    tokens = policy.model.head.decoded.tokens_bn[0].tolist()
    policy.model.head.draft = NgramDraft.fit([tokens])
    policy.save_pretrained(tmp_path / "p")
    shutil.rmtree(tmp_path / "fast")
    loaded = FastVLA.from_pretrained(tmp_path / "p")
    np.testing.assert_array_equal(loaded.infer(observation()).positions, plain)
    assert loaded.model.head.decoded.accepted > 0
    shutil.move(tmp_path / "p" / "fast_tokenizer", tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="'action_tokenizer'"):
        FastVLA.from_pretrained(tmp_path / "p")
    files = LocalFiles(action_tokenizer=tmp_path / "elsewhere")
    FastVLA.from_pretrained(tmp_path / "p", files=files)


def test_show_names_the_parts_and_counts_them(saved: Path):
    found = describe(str(saved))
    assert found["type"] == "fastvla_vla"
    assert (found["head"], found["fusion"], found["flow steps"]) == ("flow", "tokens", 3)
    model = FastVLA.from_pretrained(saved).model
    total = sum(p.numel() for p in model.parameters())
    assert found["parameters"] == f"{total / 1e6:.2f} M"
    size = (saved / "model.safetensors").stat().st_size
    size += (saved / "backbone" / "model.safetensors").stat().st_size
    assert found["weights"] == f"{size / 1e6:.2f} MB"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": {**JOINT, "layers": [0, 2]}}, "reads layer 2, the backbone has 2"),
        ({"head": {**JOINT, "depth": 3}}, "3 layers reads a backbone of 2"),
        ({"head": {**JOINT, "heads": 3}}, "3 heads cannot share"),
        ({"head": {**JOINT, "width": 48}}, "size mismatch"),
        ({"head": head("bins")}, "tensors do not fit config.json"),
        ({"fusion": {"type": "cross_attention", "heads": 5}}, "5 heads does not divide"),
        ({"fusion": CROSS}, "'fusion.blank.weight' is missing"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_when_loaded(saved: Path, changes, message):
    path = saved / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message):
        FastVLA.from_pretrained(saved)


def test_a_checkpoint_without_its_backbone_is_refused(saved: Path):
    shutil.rmtree(saved / "backbone")
    with pytest.raises(CheckpointError, match="backbone"):
        FastVLA.from_pretrained(saved)


@pytest.mark.parametrize(("task", "message"), [("  ", "is empty"), ("a\udcff", "no valid text")])
def test_instructions_that_cannot_be_read_are_refused(saved: Path, task: str, message: str):
    with pytest.raises(ObservationError, match=message):
        FastVLA.from_pretrained(saved).infer(observation(task=task))


def test_the_instruction_and_the_state_matter(smolvlm: Path):
    policy = vla_policy(smolvlm, head=head("regression"), use_relative_actions=False)
    plain = policy.infer(observation())
    other = policy.infer(observation(task=TEXTS[1]))
    assert not np.allclose(plain.positions, other.positions)
    moved = observation()
    moved.state[0] += 1
    assert not np.allclose(plain.positions, policy.infer(moved).positions)
