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
        (["train", "--recipe", "no-such-recipe", "--out", "{tmp}/run"], "no-such-recipe"),
        (["train", "{tmp}", "--out", "{tmp}/file/run"], "{tmp}/file"),
        (["quantize", "nano", "--out", "{tmp}/file/small"], "{tmp}/file"),
        (["quantize", "nano", "--out", "{tmp}/file"], "{tmp}/file"),
    ],
)
def test_a_mistake_is_one_message_and_status_1(
    arguments: list[str], words: str, tmp_path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").touch()
    assert main([a.replace("{tmp}", str(tmp_path)) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert words.replace("{tmp}", str(tmp_path)) in error
    assert "to mend: " in error
    assert "Traceback" not in error


def test_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["dance"])
    assert ended.value.code == 2
    assert "demo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "bags", "--out", "run", "--steps", "0"],
        ["train", "bags", "--out", "run", "--learning-rate", "nan"],
        ["data", "convert", "bags", "--out", "cache", "--workers", "-1"],
        ["data", "convert", "bags", "--out", "cache", "--rate", "0"],
        ["eval", "--seeds=-5:5"],
        ["eval", "--seeds", "9:3"],
        ["eval", "--at-least", "95"],
        ["record", "--task", "reach", "--expert", "--out", "bags", "--workers", "0"],
    ],
)
def test_numbers_that_cannot_be_are_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[-1].split("=")[-1] in capsys.readouterr().err


def test_debug_shows_where_a_path_failed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        main(["--debug", "quantize", "nano", "--out", str(tmp_path / "file" / "small")])
