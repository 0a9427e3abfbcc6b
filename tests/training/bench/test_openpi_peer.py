"""openpi's own pi0 and pi0.5 give our actions from the same weights."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from training.bench.contest.contenders import OPENPI_PYTHON, contenders
from training.bench.contest.race import Race
from training.bench.contest.workloads import prepare

DATA = Path(__file__).parents[2] / "parity" / "data"
pytestmark = pytest.mark.timeout(900)


@pytest.mark.skipif(
    not os.environ.get(OPENPI_PYTHON), reason=f"{OPENPI_PYTHON} names no interpreter"
)
@pytest.mark.parametrize("policy", ["pi0", "pi05"])
def test_openpi_agrees_and_is_timed(policy: str, tmp_path: Path):
    checkpoint = Path(shutil.copytree(DATA / policy / "checkpoint", tmp_path / policy))
    shutil.copy2(DATA / policy / "architecture.json", checkpoint)
    workload = prepare(str(checkpoint), tmp_path, inputs=4, device="cpu")
    everybody = contenders(policy, device="cpu", compute=("fp32",))
    peers = [
        dataclasses.replace(c, module="tests.training.bench.small_openpi")
        for c in everybody
        if c.name.startswith("openpi")
    ]
    contest = Race(
        workload, device="cpu", threads=1, replays=3, seconds=3000.0, in_turn=False, say=print
    )
    results = contest.run([everybody[0], *peers])
    assert len(results) == 3
    for result in results:
        assert result.why == ""
        assert result.agreement is not None
        assert result.agreement.worst_cosine > 0.99999
        assert result.agreement.max_error < 1e-4
