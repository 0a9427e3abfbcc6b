"""`fastvla serve`: it says where it listens, serves, ends on a signal, and refuses in words."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from fastvla_core.cli import main
from fastvla_core.models.vision_tokens.options import VisionTokens
from fastvla_core.remote.client import RemotePolicy
from fastvla_core.remote.served import policy_id
from fastvla_core.robot.contract_file import load_contract
from tests.core.remote.certificates import TOKEN, folder, make_authority


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "fastvla_core.cli", "serve", "--threads", "1", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def address(process: subprocess.Popen) -> str:
    """The address that the server names when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "is served at" in line, process.communicate(timeout=10)
    return line.partition("is served at ")[2].partition(";")[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_comes(tmp_path, number):
    authority = make_authority()
    server = folder(tmp_path / "s", identity=authority.issue("server"), token=TOKEN)
    client = folder(tmp_path / "c", trusts=authority, token=TOKEN)
    process = start("--listen", "127.0.0.1:0", "--credentials", str(server))
    try:
        policy = RemotePolicy.connect(
            address(process), credentials=client, contract=load_contract("tabletop")
        )
        assert policy.description.quantization == "nf4"
        assert policy.description.checkpoint == "nano"
        assert policy.description.conditionings == ("inpaint",)
        policy.close()
        process.send_signal(number)
        assert process.wait(20) == 0, process.communicate()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "0.0.0.0:0"], "without credentials"),
        (["--listen", "127.0.0.1:x"], "no address"),
        (["--credentials", "{tmp}/none"], "no folder of credentials"),
        (["--listen", "127.0.0.1:0", "--policy", "no-such"], "no-such"),
    ],
)
def test_a_mistake_is_one_message(tmp_path, capsys, arguments, words):
    assert main(["serve", *(a.replace("{tmp}", str(tmp_path)) for a in arguments)]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "to mend: " in error


def test_the_id_of_a_policy_follows_its_files_and_its_quantization(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1" * 10)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text("{}")
    before = policy_id(tmp_path, quantization="nf4")
    (tmp_path / "README.md").write_text("said later")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("y")
    assert policy_id(tmp_path, quantization="nf4") == before
    assert policy_id(tmp_path, quantization="int8") != before
    tokens = VisionTokens(pruning="uniform")
    assert policy_id(tmp_path, quantization="nf4", vision_tokens=tokens) != before
    (tmp_path / "tokenizer" / "vocab.json").write_text("{ }")
    assert policy_id(tmp_path, quantization="nf4") != before
