"""The measurement of drafts compares the same tokens, and says what they took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastvla_core.cli import main
from fastvla_core.errors import FastVLAError
from training.bench.draft import time_draft

CHECKPOINT = Path(__file__).parents[1] / "parity/data/pi0_fast/checkpoint"


def test_bench_prints_acceptance_and_speed_up_of_the_same_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "bench.json"
    arguments = ["bench", "draft", "--policy", str(CHECKPOINT), "--rounds", "3", "--threads", "1"]
    assert main([*arguments, "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(file.read_text())["draft"]
    assert "acceptance" in printed
    assert "speed_up" in printed
    assert found["identical"]
    assert found["chunks"] == 3
    assert 0 < found["acceptance"] <= 1
    assert found["draft_passes"] < found["greedy_passes"] == found["tokens"] - 1


def test_a_policy_that_writes_no_tokens_is_refused():
    with pytest.raises(FastVLAError, match="writes no tokens"):
        time_draft("nano", rounds=1, threads=1)
