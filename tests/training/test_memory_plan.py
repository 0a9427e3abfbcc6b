"""Recipes for large policies fit the GPUs they are for: planned without a GPU, without weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastvla_core.cli import main
from fastvla_core.errors import DatasetError
from fastvla_core.models.lora import LoraConfig
from fastvla_core.robot_adaptation import adapted_policy
from tests.core.models.heads.contexts import make_fast_tokenizer
from tests.core.models.lerobot.checkpoints import copied
from tests.training.test_finetune import CONFIG, CONTRACT, dataset_for, trainer
from training.finetune import Trainer
from training.learning_options import InsulationTraining
from training.live_memory import LiveBytes
from training.memory_plan import plan_memory, require_planned
from training.memory_table import RECIPES, as_stored, stored_rows
from training.recipe import Recipe, load_recipe

TINY = Recipe(
    name="tiny",
    contract="tabletop",
    policy="nano",
    new=True,
    rate_hz=10.0,
    policy_options={"image_resolution": (32, 32)},
    training=CONFIG,
)


def test_what_is_let_go_of_and_what_is_a_view_is_not_counted():
    x = torch.zeros(1000)
    with LiveBytes([x]) as live:
        y = x * 2
        del y
        z = x + 1
        assert z[:10].sum() == 10
    # 1,000 numbers, and the bytes of a sum and of a comparison.
    assert 4000 <= live.peak < 4100


def test_a_planned_network_needs_what_the_real_one_is_measured_to_need(tmp_path: Path):
    planned, real = plan_memory(TINY), trainer(tmp_path)[0].memory
    for name in ("weights", "gradients", "optimizer", "averages", "part"):
        assert getattr(planned, name) == getattr(real, name), name
    assert planned.activations == pytest.approx(real.activations, rel=0.15)


def tiny(**training: object) -> Recipe:
    return dataclasses.replace(TINY, training=dataclasses.replace(CONFIG, **training))


def test_adapters_on_packed_weights_and_a_discrete_head_are_planned():
    plain = plan_memory(TINY)
    lora = LoraConfig(rank=2, modules=("expert.layers.*",), quantization="nf4")
    packed = plan_memory(tiny(lora=lora))
    assert packed.weights < 0.8 * plain.weights
    assert packed.gradients < 0.1 * plain.gradients
    insulated = plan_memory(tiny(insulation=InsulationTraining(width=64)))
    assert insulated.weights > plain.weights


def published(folder: Path, **training: object) -> Recipe:
    """A tiny checkpoint of no robot, to be adapted to the table-top's."""
    changed = dataclasses.replace(CONFIG, **training)
    return dataclasses.replace(
        TINY, new=False, policy=str(folder), policy_options={}, training=changed
    )


def test_a_policy_that_writes_its_actions_is_planned_as_it_is_measured(tmp_path: Path):
    folder, random = copied("pi0_fast", tmp_path), torch.Generator().manual_seed(0)
    policy = adapted_policy(
        str(folder),
        contract=CONTRACT,
        dt_s=0.1,
        state_ns=torch.randn(9, 7, generator=random),
        actions_nta=torch.randn(9, 10, 7, generator=random),
        floor_a=torch.full((7,), 0.01),
    )
    dataset = dataset_for(policy)
    real = Trainer(policy, dataset=dataset, config=CONFIG, out=tmp_path / "out").memory
    # A run on a CPU takes attention apart, and its scores are kept.
    with sdpa_kernel(SDPBackend.MATH):
        planned = plan_memory(published(folder))
    for name in ("weights", "gradients", "optimizer", "averages", "part"):
        assert getattr(planned, name) == getattr(real, name), name
    assert planned.activations == pytest.approx(real.activations, rel=0.15)


def test_the_longest_chunk_in_tokens_is_planned(tmp_path: Path):
    folder = copied("pi0", tmp_path)
    plain, short, long = (
        plan_memory(published(folder, insulation=insulation))
        for insulation in (
            None,
            InsulationTraining(tokens="fast", max_tokens=16),
            InsulationTraining(tokens="fast", max_tokens=64),
        )
    )
    # The language model writes them: there is no head.
    assert plain.weights == short.weights
    assert plain.activations < short.activations < long.activations
    fast = InsulationTraining(
        tokens="fast", action_tokenizer=str(make_fast_tokenizer(tmp_path / "fast")), width=64
    )
    assert plan_memory(tiny(insulation=fast)).weights > plan_memory(TINY).weights


def test_a_run_that_cannot_fit_is_refused_with_the_first_change_that_does():
    recipe = tiny(batch_size=16)
    needed = plan_memory(recipe)
    require_planned(recipe, needed, gpu_gb=needed.total / 1e9)
    with pytest.raises(DatasetError, match="recipe 'tiny' needs about") as caught:
        require_planned(recipe, needed, gpu_gb=0.97 * needed.total / 1e9)
    assert caught.value.mend is not None
    assert "set `activations: recompute` in" in caught.value.mend
    with pytest.raises(DatasetError) as caught:
        require_planned(recipe, needed, gpu_gb=1e-6)
    assert "a larger GPU" in caught.value.mend


def test_of_weights_in_parts_each_process_keeps_its_share_and_gathers_a_layer_at_a_time():
    whole, parts = (plan_memory(tiny(parallel=p), processes=2) for p in ("ddp", "fsdp"))
    for name in ("weights", "gradients", "optimizer", "averages"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name) / 2, abs=1)
    assert (whole.gathered, whole.part, parts.part) == (0, 2, 2)
    assert 0 < parts.gathered < whole.weights + whole.gradients
    assert "gathered for a moment" in parts.in_words()
    zero = plan_memory(tiny(parallel="deepspeed"), processes=2)
    for name in ("gradients", "optimizer"):
        assert getattr(zero, name) == getattr(parts, name)
    assert zero.averages == whole.averages
    # A float32 copy of what it updates, and a bucket that holds all of a small network.
    assert zero.weights == whole.weights + whole.gradients // 2
    assert zero.gathered == whole.gradients
    # Nobody has anything to share a layer with.
    alone = plan_memory(tiny(parallel="fsdp"))
    assert (alone.weights, alone.gathered) == (whole.weights, 0)


def test_several_processes_are_first_told_to_keep_their_weights_in_parts():
    recipe = tiny(batch_size=16)
    needed = plan_memory(recipe, processes=2)
    with pytest.raises(DatasetError) as caught:
        require_planned(recipe, needed, gpu_gb=0.98 * needed.total / 1e9, processes=2)
    assert caught.value.mend is not None
    assert "set `parallel: fsdp` in" in caught.value.mend
    with pytest.raises(DatasetError, match="cannot be shared by 3 processes"):
        plan_memory(recipe, processes=3)


def test_a_policy_whose_sizes_nobody_knows_is_named():
    recipe = dataclasses.replace(TINY, new=False, policy="somebody/policy", policy_options={})
    with pytest.raises(DatasetError, match="sizes of 'somebody/policy' are not known"):
        plan_memory(recipe)


@pytest.mark.parametrize("name", RECIPES)
def test_the_table_of_the_docs_fits_and_is_of_the_recipe_as_it_is(name: str):
    recipe, row = load_recipe(name), stored_rows()[name]
    assert row["total"] < recipe.gpu_gb * 1e9
    assert row["recipe"] == as_stored(recipe)


def test_the_table_of_the_docs_is_what_is_planned():
    name = "smolvla_16gb"
    assert plan_memory(load_recipe(name)).total == stored_rows()[name]["total"]


def test_an_estimate_is_printed_on_a_machine_without_a_gpu(capsys: pytest.CaptureFixture[str]):
    estimate = ["train", "--recipe", "lora", "--estimate", "--gpu-gb", "16"]
    assert main(estimate) == 0
    printed = capsys.readouterr().out
    assert "optimiser" in printed
    assert "fits a GPU of 16 GB" in printed
    assert main([*estimate, "--processes", "2", "--parallel", "fsdp"]) == 0
    assert "gathered for a moment" in capsys.readouterr().out


def test_out_may_only_be_left_out_for_an_estimate(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--recipe", "lora"]) != 0
    assert "`--out` is missing" in capsys.readouterr().err
