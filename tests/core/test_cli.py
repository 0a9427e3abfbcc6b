"""The command line: help for strangers, exit codes for scripts, no traceback for a mistake."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastvla_core.cli import COMMANDS, main


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"fastvla {command}" in text
    assert len(text.splitlines()) > 5


def test_help_needs_neither_torch_nor_ros():
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['rclpy'] = None\n"
        "from fastvla_core.cli import main\n"
        "sys.exit(main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["eval", "--policy", "no/such/policy", "--seeds", "1:2", "--workers", "1"],
            "no/such/policy",
        ),
        (["train", "no_such_bags", "--out", "{tmp}/run"], "no_such_bags"),
        (["train", "--recipe", "{tmp}/none.yaml", "--out", "{tmp}/run"], "none.yaml"),
        (["bench", "nothing"], "no part 'nothing'"),
        (["quantize", "{tmp}/none", "--mode", "nf4", "--out", "{tmp}/q"], "none"),
    ],
)
def test_a_mistake_is_one_message_and_status_1(
    arguments: list[str], words: str, tmp_path, capsys: pytest.CaptureFixture[str]
):
    assert main([a.replace("{tmp}", str(tmp_path)) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["dance"])
    assert ended.value.code == 2
    assert "demo" in capsys.readouterr().err
