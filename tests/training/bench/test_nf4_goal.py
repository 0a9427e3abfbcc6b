"""What four bits may cost the shipped policy, on scenes that it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fastvla_core.models.loading import skipped_layers
from fastvla_core.quant import quantize_module
from training.bench.contest.check import NF4_GOAL, agreement
from training.bench.contest.ours import load
from training.bench.contest.workloads import Workload, prepare
from training.bench.nf4_layers import KEPT, table


def packed_actions(workload: Workload, skip: tuple[str, ...] | None) -> Tensor:
    """Of all inputs at once; at full precision where nothing is said of what to skip."""
    model: Any = load(str(workload.checkpoint), compute=torch.float32, device="cpu")
    if skip is not None:
        quantize_module(model, "nf4", skip=skip)
    batch = load_file(workload.inputs)
    with torch.inference_mode():
        return model(batch, batch["noise"])


def test_the_nano_policy_reaches_the_goal_because_of_what_is_not_packed(tmp_path: Path):
    workload = prepare("nano", tmp_path, inputs=50, device="cpu")
    exact, noise = packed_actions(workload, None), load_file(workload.inputs)["noise"]
    model: Any = load(str(workload.checkpoint), compute=torch.float32, device="cpu")
    worst = [
        agreement(packed_actions(workload, skip), exact, noise).worst_cosine
        for skip in (skipped_layers(model, "nf4"), model.full_precision)
    ]
    assert worst[0] >= NF4_GOAL > worst[1]


def test_the_table_tells_what_each_choice_keeps_and_costs(tmp_path: Path):
    _, _, *rows = table(tmp_path, inputs=4, draws=1)
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    kept = {name: int(weights.replace(",", "")) for name, weights, *_ in cells}
    stored = {name: float(cosine) for name, _, cosine, *_ in cells}
    assert list(kept) == list(KEPT)
    assert kept["nothing"] == 0 < kept["keys, values"] < kept["all of attention"]
    assert stored["nothing"] < stored["all of attention"] <= 1
