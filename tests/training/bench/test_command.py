"""From the command's options to tables, JSON and Markdown."""

from __future__ import annotations

import json

import pytest

from training.bench.contest.command import RaceOptions, run_races
from training.bench.contest.workloads import SMALL
from training.bench.markdown import tables

MACHINE = {"cpu": "some", "cores": 2, "gpu": None}


@pytest.mark.timeout(900)
def test_a_race_from_one_command(tiny, capsys):
    report = run_races(
        RaceOptions(
            policy=SMALL, device="cpu", inputs=2, replays=4, minutes=50.0, only=("eager, nf4",)
        )
    )
    printed = capsys.readouterr().out
    assert "measured limits: copies" in printed
    assert "ours, eager, nf4" in printed
    race = report["races"][SMALL]
    assert [row["contender"] for row in race["rows"]] == ["torch, fp32", "ours, eager, nf4"]
    assert all(row["replays"] == 4 and row["floor_share"] > 0 for row in race["rows"])
    assert report["versions"]["torch"]
    stored = json.loads(json.dumps({"machine": MACHINE, "policy": report}))
    text = "\n".join(tables(stored))
    assert "| ours, eager, nf4 |" in text
    assert "GPU: none" in text


def test_who_was_not_measured_stays_in_the_markdown():
    row = {"contender": "LeRobot", "p50_ms": None, "why": "no LeRobot"}
    races = {"pi0": {"parameters": 3e9, "shape": "3 views", "rows": [row]}, "nano": {"why": "gone"}}
    learned = {"contender": "peft", "why": "no peft"}
    qlora = {"policy": "pi0", "shape": "", "batch": 2, "rows": [learned], "curves": None}
    text = "\n".join(tables({"machine": MACHINE, "policy": {"races": races}, "qlora": qlora}))
    assert "| LeRobot | not measured: no LeRobot |" in text
    assert "**nano**: not measured: gone" in text
    assert "| peft | not measured: no peft |" in text
