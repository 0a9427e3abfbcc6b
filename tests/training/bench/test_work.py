"""Counts of what is multiplied and read, and the time that no device goes below."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from fastvla_core.models.registry import POLICIES
from fastvla_core.models.weightless import weightless
from training.bench.contest import workloads
from training.bench.contest.rates import Rates, measure_rates
from training.bench.contest.work import BYTES_PER_WEIGHT, Call, Work, count_work
from training.bench.contest.workloads import SMALL, random_batch, random_policy

RATES = Rates(copy_bytes_per_s=1e9, flops_per_s={"fp32": 1e9})


def counted(shape, folder):
    config, model = random_policy(SMALL, shape, folder, device="cpu")
    with weightless():
        twin = POLICIES.load("smolvla").model(config).eval()
    batch = random_batch(config, shape, generator=torch.Generator().manual_seed(0))
    return count_work(twin, batch), model


def test_the_expert_is_read_once_per_flow_step_and_the_prefix_once(tiny, tmp_path):
    work, model = counted(tiny, tmp_path)
    parts = (model.expert, model.action_in, model.action_out, model.time_in, model.time_out)
    linear = [m for part in parts for m in part.modules() if isinstance(m, nn.Linear)]
    expert = sum(p.numel() for layer in linear for p in layer.parameters())
    more, _ = counted(dataclasses.replace(tiny, steps=tiny.steps + 1), tmp_path)
    assert sum(c.weights for c in more.calls) - sum(c.weights for c in work.calls) == expert
    assert work.weight_bytes(weights="nf4", compute="fp32") < work.weight_bytes(
        weights="fp32", compute="fp32"
    )


def test_products_grow_with_what_is_seen(tiny, more_views, tmp_path):
    work, _ = counted(tiny, tmp_path)
    seen, _ = counted(more_views, tmp_path)
    assert seen.flops > work.flops
    assert 0 < work.flow_flops < work.flops
    assert sum(c.flops for c in work.calls) <= work.flops


def test_a_layer_takes_the_longer_of_multiplying_and_reading():
    reads = Call(flops=1e6, weights=10**6, packed=frozenset({"nf4"}))
    multiplies = Call(flops=1e9, weights=10)
    work = Work(calls=(reads, multiplies), flops=1e9 + 1e6 + 5e8, flow_flops=0.0)
    assert work.floor_s(RATES, weights="fp32", compute="fp32") == pytest.approx(0.004 + 1 + 0.5)
    packed = BYTES_PER_WEIGHT["nf4"] * 1e-3
    assert work.floor_s(RATES, weights="nf4", compute="fp32") == pytest.approx(
        max(packed, 1e-3) + 1.5
    )


@pytest.mark.parametrize(
    ("name", "millions", "tflop"), [("smolvla", 403, 0.60), ("pi0", 3240, 2.95)]
)
def test_true_sizes_are_the_published_ones(name, millions, tflop, tmp_path):
    shape = workloads.SHAPES[name]
    make = workloads._smolvla_data if name == "smolvla" else None
    data = make(name, shape, tmp_path) if make else workloads._pi_data(name, shape)
    from fastvla_core.models.lerobot.files import NO_LOCAL_FILES

    family = POLICIES.load(data["type"])
    config = family.config(data, folder=tmp_path, files=NO_LOCAL_FILES)
    with weightless():
        model = family.model(config).eval()
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    assert parameters == pytest.approx(millions, rel=0.03)
    batch = {k: v.to("meta") for k, v in meta_batch(config, shape).items()}
    assert count_work(model, batch).flops / 1e12 == pytest.approx(tflop, rel=0.05)


def meta_batch(config, shape):
    return random_batch(config, shape, generator=torch.Generator().manual_seed(0))


def test_a_device_is_measured():
    rates = measure_rates("cpu", types=("fp32",))
    assert rates.copy_bytes_per_s > 1e8
    assert rates.flops_per_s["fp32"] > 1e8
