"""The tables of visual tokens: every variant on the same frames, times and shares that add up."""

from __future__ import annotations

import pytest
import torch

from fastvla_core.errors import FastVLAError
from fastvla_core.models.policies.flow_vla.model import FlowVLA
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.sim.tasks import TASKS
from tests.core.models.tiny import tiny_config
from training.bench import tokens
from training.bench.token_shapes import Shapes, shape_line, shape_variants, time_shapes


def test_every_variant_of_the_shapes_is_timed():
    torch.manual_seed(0)
    model = FlowVLA(tiny_config()).eval()
    shapes = Shapes(model=model, height=16, width=24, words=12, state=3, vocabulary=300)
    rows = time_shapes(shapes, rounds=2)
    assert [(row.variant, row.scene) for row in rows] == [(n, s) for n, _, s in shape_variants()]
    assert all(row.p50_ms > 0 for row in rows)
    assert rows[0].saved == 0
    assert "both cameras move" in shape_line(rows[0])


def test_a_variant_sees_what_the_plain_policy_saw_and_reuses_what_it_can(monkeypatch):
    few = {
        "all tokens": VisionTokens(),
        "uniform 0.25": VisionTokens(pruning="uniform", keep=0.25),
        "anything": VisionTokens(camera_reuse=1e9, prefix_reuse=True),
    }
    monkeypatch.setattr(tokens, "token_variants", lambda: few)
    rows = tokens.time_tokens("nano", rounds=4)
    assert [row.variant for row in rows] == list(few)
    assert rows[0].saved == 0
    assert 0.5 < rows[2].cameras_reused < 1, "all but the first of each episode"
    assert rows[0].cameras_reused == 0
    assert "uniform 0.25" in tokens.timing_line(rows[1])
    assert "of prefixes" in tokens.timing_line(rows[2])


def test_success_is_counted_over_all_tasks(monkeypatch):
    variants = {"plain": VisionTokens(), "exact": VisionTokens(camera_reuse=0.0)}
    monkeypatch.setattr(tokens, "token_variants", lambda: variants)

    class Result:
        successes = 3

    asked = []
    monkeypatch.setattr(tokens, "evaluate", lambda config: asked.append(config) or Result)
    (row,) = tokens.measure_success("nano", episodes=4, workers=1)
    assert [config.task for config in asked] == list(TASKS), "what is exact is not run again"
    assert row.successes == dict.fromkeys(TASKS, 3)
    assert row.success_rate == 0.75
    low, high = row.interval
    assert low < 0.75 < high
    assert "75.0%" in tokens.success_line(row)


def test_a_row_that_is_not_there_is_named_before_anything_is_run(monkeypatch):
    monkeypatch.setattr(tokens, "evaluate", lambda _: pytest.fail("it ran"))
    with pytest.raises(FastVLAError, match="no row 'adaptive 1'"):
        list(tokens.measure_success("nano", episodes=1, workers=1, rows=["adaptive 1"]))
