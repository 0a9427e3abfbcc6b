"""SIGINT and SIGTERM: contexts end, and handlers that were there stay in force."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.ros.ros_session import wait_for_line

SCRIPT = Path(__file__).parent / "peers" / "handlers.py"


@pytest.mark.parametrize(
    ("options", "code", "number", "ends"),
    [
        ("ALL", 3, signal.SIGINT, True),
        ("ALL", 3, signal.SIGTERM, True),
        ("NO", 0, signal.SIGINT, False),
        ("SIGTERM", 2, signal.SIGINT, False),
        ("SIGTERM", 2, signal.SIGTERM, True),
        ("SIGINT", 1, signal.SIGINT, True),
    ],
)
def test_the_chosen_signals_end_the_context_beside_the_programs_own_handlers(
    start, options, code, number, ends
):
    process = start(SCRIPT, options, "ends" if ends else "lives")
    wait_for_line(process, f"options {code}")
    process.send_signal(number)
    output = process.communicate(timeout=60)[0].splitlines()
    assert output == [f"['{number.name}'] {not ends}", "kept True"]
