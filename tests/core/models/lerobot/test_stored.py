"""Weights as people have them: shards, spellings, types, adapters; and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvla_core.errors import CheckpointError
from fastvla_core.policy import FastVLA

from .checkpoints import DATA, POLICIES, change_json, change_weights, copied, positions


@pytest.mark.parametrize("policy", POLICIES)
def test_saving_gives_back_every_file_and_weight_exactly(tmp_path: Path, policy: str):
    source = copied(policy, tmp_path)
    loaded = FastVLA.from_pretrained(source)
    loaded.save_pretrained(tmp_path / "saved")
    before, after = (load_file(f / "model.safetensors") for f in (source, tmp_path / "saved"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name in ("config.json", "policy_preprocessor.json", "policy_postprocessor.json"):
        texts = [json.loads((f / name).read_text()) for f in (source, tmp_path / "saved")]
        assert texts[0] == texts[1]
    assert {p.name for p in source.glob("*.safetensors")} <= {
        p.name for p in (tmp_path / "saved").glob("*.safetensors")
    }
    again = FastVLA.from_pretrained(tmp_path / "saved")
    if policy != "pi0_fast":
        assert np.array_equal(positions(again), positions(loaded))


def test_tied_and_unused_weights_are_kept_for_other_tools(tmp_path: Path):
    folder = copied("pi0", tmp_path)
    gemma = "model.paligemma_with_expert.paligemma"
    unread = "model.paligemma_with_expert.gemma_expert.lm_head.weight"

    def add(weights):
        head = weights[f"{gemma}.lm_head.weight"]
        weights[f"{gemma}.model.language_model.embed_tokens.weight"] = head.clone()
        weights[unread] = torch.randn(5, 4)

    change_weights(folder, add)
    FastVLA.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "saved"))
    assert before.keys() == after.keys()
    assert torch.equal(after[unread], before[unread])
    change_weights(folder, lambda weights: weights[f"{gemma}.lm_head.weight"].add_(1.0))
    with pytest.raises(CheckpointError, match=r"lm_head.*tied but differ"):
        FastVLA.from_pretrained(folder)


def test_shards_are_read_and_a_missing_one_is_named(tmp_path: Path):
    folder = copied("pi05", tmp_path)
    expected = positions(FastVLA.from_pretrained(folder))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, folder / file)
    table = {name: file for file, own in parts.items() for name in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    assert np.array_equal(positions(FastVLA.from_pretrained(folder)), expected)
    (folder / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.safetensors is missing"):
        FastVLA.from_pretrained(folder)


_OTHER_SPELLINGS = {
    "openpi": (r"^model\.", ""),
    "new SigLIP": (r"vision_tower\.vision_model\.", "vision_tower."),
    "old PaliGemma": (
        r"paligemma\.(?:model\.)?(language_model|vision_tower|multi_modal_projector|lm_head)\.",
        lambda m: {
            "language_model": "paligemma.language_model.model.",
            "lm_head": "paligemma.language_model.lm_head.",
        }.get(m[1], f"paligemma.{m[1]}."),
    ),
}


@pytest.mark.parametrize("spelling", _OTHER_SPELLINGS)
@pytest.mark.parametrize("policy", ["pi0", "pi05"])
def test_other_spellings_of_the_same_weights_load(tmp_path: Path, policy: str, spelling: str):
    folder = copied(policy, tmp_path)
    expected = positions(FastVLA.from_pretrained(folder))
    pattern, replacement = _OTHER_SPELLINGS[spelling]

    def rename(weights):
        renamed = {re.sub(pattern, replacement, name): t for name, t in weights.items()}
        assert renamed.keys() != weights.keys()
        weights.clear()
        weights.update(renamed)

    change_weights(folder, rename)
    policy_again = FastVLA.from_pretrained(folder)
    assert np.array_equal(positions(policy_again), expected)
    policy_again.save_pretrained(tmp_path / "saved")
    usual = load_file(DATA / policy / "checkpoint/model.safetensors")
    assert load_file(tmp_path / "saved/model.safetensors").keys() == usual.keys()


@pytest.mark.parametrize("policy", POLICIES)
def test_weights_in_bfloat16_are_computed_as_the_config_says(tmp_path: Path, policy: str):
    folder = copied(policy, tmp_path)

    def halve(weights):
        for name in weights:
            weights[name] = weights[name].bfloat16()

    change_weights(folder, halve)
    loaded = FastVLA.from_pretrained(folder)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    if policy in ("pi0", "pi05"):
        change_json(folder / "config.json", dtype="bfloat16")
        small = FastVLA.from_pretrained(folder)
        assert {p.dtype for p in small.model.parameters()} == {torch.bfloat16}
        assert np.abs(positions(small) - positions(loaded)).max() < 0.1


def _missing(weights):
    del weights["model.action_in_proj.bias"]


def _extra(weights):
    weights["model.surprise.weight"] = torch.zeros(1)


def _mismatch(weights):
    weights["model.action_in_proj.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_missing, r"'model\.action_in_proj\.bias' is missing"),
        (_extra, r"'model\.surprise\.weight' is not part"),
        (_mismatch, r"'model\.action_in_proj\.bias' is \(3,\), expected \(\d+,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named_as_they_are_stored(tmp_path: Path, damage, said: str):
    for policy in ("smolvla", "pi0"):
        folder = copied(policy, tmp_path)
        change_weights(folder, damage)
        with pytest.raises(CheckpointError, match=said) as caught:
            FastVLA.from_pretrained(folder)
        assert str(folder) in str(caught.value)


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path: Path):
    folder = copied("pi0", tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickle.*\n.*save_file\(torch\.load"):
        FastVLA.from_pretrained(folder)


@pytest.mark.parametrize("beside", [True, False])
def test_adapters_are_merged_into_the_policy_they_belong_to(tmp_path: Path, beside: bool):
    base = copied("pi05", tmp_path)
    weights = load_file(base / "model.safetensors")
    module = "model.paligemma_with_expert.gemma_expert.model.layers.0.self_attn.q_proj"
    whole = "model.action_out_proj"
    down, up = torch.randn(2, weights[f"{module}.weight"].shape[1]), torch.randn(128, 2)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    prefix = "base_model.model."
    tensors = {
        f"{prefix}{module}.lora_A.weight": down,
        f"{prefix}{module}.lora_B.weight": up,
        f"{prefix}{whole}.weight": weights[f"{whole}.weight"] + 1.0,
    }
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "r": 2,
        "lora_alpha": 6,
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    if beside:
        for path in base.glob("*.json"):
            (adapter / path.name).write_text(path.read_text())
        for path in base.glob("policy*.safetensors"):
            (adapter / path.name).write_bytes(path.read_bytes())
        (adapter / "tokenizer").symlink_to(base / "tokenizer")
    merged = FastVLA.from_pretrained(adapter)

    def merge(stored):
        stored[f"{module}.weight"] += 3.0 * (up @ down)
        stored[f"{whole}.weight"] += 1.0

    change_weights(base, merge)
    expected = positions(FastVLA.from_pretrained(base))
    assert np.allclose(positions(merged), expected, atol=1e-5)
    tensors[f"{prefix}{module}.lora_B.weight"] = up[:5].clone()
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"adapter_model.*q_proj\.weight.*\(128, 32\)"):
        FastVLA.from_pretrained(adapter)
