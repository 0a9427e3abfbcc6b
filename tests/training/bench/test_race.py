"""The race: real processes, tiny weights. Wrong actions are refused, whoever fails says why."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch

from fastvla_core.errors import FastVLAError
from training.bench.contest.check import Agreement
from training.bench.contest.contenders import REFERENCE, Contender, contenders
from training.bench.contest.race import Race, Result
from training.bench.contest.rates import Rates
from training.bench.contest.table import make_row, table_lines
from training.bench.contest.work import Call, Work
from training.bench.contest.workloads import Workload
from training.bench.markdown import tables

RATES = Rates(copy_bytes_per_s=1e9, flops_per_s={"fp32": 1e9})
WORK = Work(
    calls=(Call(flops=1e3, weights=10, packed=frozenset({"nf4"})),), flops=1e3, flow_flops=0.0
)
PLAIN = {"compute": "fp32", "weights": "fp32", "way": "plain"}
RIGHT = Contender(name=REFERENCE, weights="fp32", compute="fp32", options=PLAIN)
MISTAKES = ("another_camera_order", "out_of_memory")


# Starting a process takes seconds, on a busy machine many.
pytestmark = pytest.mark.timeout(900)


def wrong(mistake: str) -> Contender:
    return Contender(
        name=mistake,
        weights="fp32",
        compute="fp32",
        module="tests.training.bench.wrong_contender",
        options={**PLAIN, "mistake": mistake},
    )


def race(workload, **others):
    options = {"replays": 12, "seconds": 3000.0, "in_turn": True, "say": lambda _: None, **others}
    return Race(workload, device="cpu", threads=1, **options)


def test_a_contender_with_wrong_actions_is_refused_and_never_timed(workload):
    packed = {**PLAIN, "weights": "nf4", "way": "plain"}
    everybody = [
        RIGHT,
        *map(wrong, MISTAKES),
        Contender(name="packed", weights="nf4", compute="fp32", peer=False, options=packed),
        Contender(name="elsewhere", weights="fp32", compute="fp32", missing="no GPU"),
    ]
    results = {result.contender.name: result for result in race(workload).run(everybody)}
    assert results["another_camera_order"].why.startswith("wrong actions")
    assert results["out_of_memory"].why == "MemoryError: no room"
    assert results["elsewhere"].why == "no GPU"
    for name in (*MISTAKES, "elsewhere"):
        assert results[name].times_ms == ()
    for name in (REFERENCE, "packed"):
        assert results[name].why == ""
        assert len(results[name].times_ms) == 12
        assert results[name].peak_mb > 10
    rows = [make_row(r, work=WORK, rates=RATES) for r in results.values()]
    assert json.loads(json.dumps([dataclasses.asdict(row) for row in rows]))
    text = "\n".join(table_lines(workload, rows))
    assert "not measured: no GPU" in text
    assert "NF4, worst of 4 inputs" in text
    assert "packed" in text
    assert f"times the fastest peer ({REFERENCE})" in text


def test_products_whose_rate_was_not_measured_have_no_floor():
    contender = Contender(name="eight bits", weights="int8", compute="int8", peer=False)
    agreed = Agreement(worst_cosine=1.0, worst_flow_cosine=1.0, max_error=0.0, inputs=1)
    result = Result(contender=contender, agreement=agreed, times_ms=(1.0, 3.0), peak_mb=1.0)
    row = make_row(result, work=WORK, rates=RATES)
    assert (row.p50_ms, row.floor_ms, row.floor_share) == (2.0, None, None)
    here = Path()
    made_up = Workload(
        name="w", policy_type="smolvla", shape="", checkpoint=here, inputs=here, parameters=1
    )
    assert "eight bits" in "\n".join(table_lines(made_up, [row]))
    races = {"w": {"parameters": 1, "shape": "", "rows": [dataclasses.asdict(row)]}}
    machine = {"cpu": "some", "cores": 2, "gpu": None}
    text = "\n".join(tables({"machine": machine, "policy": {"races": races}}))
    assert "| eight bits | 2 | 2.98 | 1.49 | 2 | 1 |  | 1.00000 |" in text


def test_without_a_reference_there_is_no_race(workload):
    absent = dataclasses.replace(RIGHT, python="/nowhere/python")
    with pytest.raises(FastVLAError, match=r"reference cannot be had.*cannot be started"):
        race(workload).run([absent])


def test_each_is_timed_alone_and_who_is_not_ready_in_time_says_so(workload):
    contest = race(workload, in_turn=False, replays=3)
    (result,) = contest.run([RIGHT])
    assert len(result.times_ms) == 3
    assert result.p50_ms <= result.p99_ms
    contest._checked_by = 0.0
    (result,) = contest.run([dataclasses.replace(RIGHT, name="slow")])
    assert "took more than" in result.why


def test_everybody_is_listed_and_who_cannot_run_says_why(monkeypatch):
    for peer in ("LEROBOT", "OPENPI"):
        monkeypatch.delenv(f"FASTVLA_{peer}_PYTHON", raising=False)
    listed = contenders("smolvla", device="cpu", compute=("fp32",))
    by_name = {c.name: c for c in listed}
    assert listed[0].name == REFERENCE
    assert len(by_name) == len(listed)
    assert by_name["ours, cuda_graph, nf4"].missing == "no GPU"
    eight = by_name["ours, onnxruntime_int8, int8"]
    assert (eight.weights, eight.compute, eight.options["weights"]) == ("int8", "int8", "fp32")
    assert "ours, onnxruntime, nf4" not in by_name
    assert "FASTVLA_LEROBOT_PYTHON" in by_name["LeRobot, default: eager, fp32"].missing
    assert by_name["openpi, eager, fp32"].missing == "openpi has no policy of type smolvla"
    pythons = {"lerobot_python": "python9", "openpi_python": "python8"}
    given = contenders("pi0", device="cuda", compute=("fp32", "bf16"), **pythons)
    openpi = [c for c in given if c.name.startswith("openpi")]
    assert [(c.python, c.weights, c.missing) for c in openpi] == [
        ("python8", "fp32", ""),
        ("python8", "bf16", ""),
    ]
    lerobot = [c for c in given if c.name.startswith("LeRobot")]
    assert [c.python for c in lerobot] == ["python9", "python9"]
    assert [c.weights for c in lerobot] == ["fp32", "bf16"]
    assert all(a.slow_start <= b.slow_start for a, b in itertools.pairwise(given))
    # A graph is converted sooner than anything is compiled.
    converts = ["onnxruntime" in c.name for c in listed if c.slow_start]
    assert converts == sorted(converts, reverse=True)
    assert {True, False} <= set(converts)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bf16_on_a_gpu_agrees_with_the_reference(workload):
    bf16 = {**PLAIN, "compute": "bf16", "weights": "bf16"}
    contender = Contender(name="bf16", weights="bf16", compute="bf16", options=bf16)
    contest = Race(
        workload, device="cuda", threads=1, replays=3, seconds=120.0, in_turn=True, say=print
    )
    results = contest.run([RIGHT, contender])
    assert [len(r.times_ms) for r in results] == [3, 3]
