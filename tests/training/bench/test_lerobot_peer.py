"""LeRobot's own SmolVLA gives our actions from the bench's random weights."""

from __future__ import annotations

import os

import pytest

from training.bench.contest.contenders import LEROBOT_PYTHON, contenders
from training.bench.contest.race import Race

pytestmark = pytest.mark.timeout(900)


@pytest.mark.skipif(
    not os.environ.get(LEROBOT_PYTHON), reason=f"{LEROBOT_PYTHON} names no interpreter"
)
def test_lerobot_agrees_and_is_timed(workload):
    everybody = contenders("smolvla", device="cpu", compute=("fp32",), lerobot_python=None)
    chosen = [everybody[0], *(c for c in everybody if "default: eager" in c.name)]
    contest = Race(
        workload, device="cpu", threads=1, replays=3, seconds=3000.0, in_turn=False, say=print
    )
    for result in contest.run(chosen):
        assert result.why == ""
        assert result.agreement is not None
        assert result.agreement.worst_cosine > 0.99999
        assert result.agreement.max_error < 1e-4
