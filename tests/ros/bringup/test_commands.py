"""`fastvla bringup` and `fastvla goal` as a user meets them: messages and exit statuses."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fastvla_core.resources import share_path
from fastvla_ros.demo.domain import reserve_domain


@pytest.fixture
def domain():
    with reserve_domain() as number:
        yield number


def start(domain, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "fastvla_core.cli", *arguments],
        env={
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, *, timeout_s=150):
    out, err = process.communicate(timeout=timeout_s)
    assert "Traceback" not in out + err, err
    return process.returncode, out, err


def test_without_a_server_the_goal_command_says_so_and_exits_with_3(domain):
    status, _, err = finish(start(domain, "goal", "pick up the red cube", "--wait", "0.5"))
    assert status == 3
    assert "no policy server" in err
    assert "fastvla bringup" in err


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_instruction_is_wrong_usage(domain, text):
    status, _, err = finish(start(domain, "goal", text))
    assert status == 2
    assert "instruction is empty" in err


def test_a_missing_checkpoint_is_one_clear_message(domain):
    status, _, err = finish(start(domain, "bringup", "--checkpoint", "/nowhere/policy"))
    assert status == 1
    assert "/nowhere/policy" in err
    assert "to mend" in err


@pytest.mark.parametrize("command", ["bringup", "demo"])
def test_a_contract_with_an_unknown_key_is_one_clear_message(domain, tmp_path, command):
    path = tmp_path / "robot.yaml"
    text = share_path("config/robots/tabletop.yaml").read_text()
    path.write_text(text.replace("\nsync:\n", "\nsink:\n"))
    status, _, err = finish(start(domain, command, "--contract", str(path)))
    line = 1 + path.read_text().splitlines().index("sink:")
    assert status == 1
    assert f"{path}:{line}: 'sink' is not a known key" in err


def test_a_goal_that_the_simulator_cannot_judge_is_refused(domain):
    status, _, err = finish(start(domain, "demo", "--goals", "make coffee"))
    assert status == 1
    assert "'make coffee'" in err


def wait_for_line(process, text, *, timeout_s=150):
    deadline = time.monotonic() + timeout_s
    lines = []
    while time.monotonic() < deadline:
        line = process.stderr.readline()
        lines.append(line)
        if text in line or not line:
            return lines
    raise AssertionError("".join(lines))


@pytest.fixture
def bringup(domain, tiny_checkpoint):
    process = start(domain, "bringup", "--checkpoint", str(tiny_checkpoint))
    wait_for_line(process, "running; Ctrl-C")
    assert process.poll() is None
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


def guard_of(process):
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(children) as file:
        return int(file.read().split()[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_cleanly(bringup, number):
    guard = guard_of(bringup)
    bringup.send_signal(number)
    status, _, err = finish(bringup, timeout_s=20)
    assert (status, "stopping" in err) == (0, True)
    assert not os.path.exists(f"/proc/{guard}")


def test_when_the_guard_dies_everything_stops_with_a_message(bringup):
    os.kill(guard_of(bringup), signal.SIGKILL)
    status, _, err = finish(bringup, timeout_s=20)
    assert status == 1
    assert "node 'command_guard' ended unexpectedly (signal 9)" in err


def test_a_goal_is_followed_to_its_end_and_ctrl_c_cancels_it(bringup, domain):
    process = start(domain, "goal", "pick up the red cube", "--timeout", "1.5", "--json")
    status, out, _ = finish(process)
    assert '"error": "TIMEOUT"' in out
    assert status == 5
    process = start(domain, "goal", "pick up the red cube", "--timeout", "60")
    assert "chunk" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    status, out, _ = finish(process)
    assert status == 130
    assert "(CANCELED" in out
