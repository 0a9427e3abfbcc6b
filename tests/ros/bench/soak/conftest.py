import subprocess

import pytest


@pytest.fixture
def start_sleep():
    """Starts a process that does nothing; it is killed at the end."""
    started = []

    def start():
        started.append(subprocess.Popen(["sleep", "60"]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
