from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fastvla_core.errors import CheckpointError
from fastvla_core.models.checkpoint import (
    load_weights,
    read_json,
    read_tensors,
    write_tensors,
    written_atomically,
)


def test_json_that_is_missing_broken_or_no_object_is_named(tmp_path: Path):
    path = tmp_path / "config.json"
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        read_json(path)
    path.write_text('{"type": ')
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        read_json(path)
    path.write_text("[1]")
    with pytest.raises(CheckpointError, match="no JSON object"):
        read_json(path)


@pytest.mark.parametrize("keep", [0, 4, 40, 200, -1])
def test_a_file_cut_anywhere_is_one_clear_error(tmp_path: Path, keep: int):
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": torch.randn(8, 8)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or damaged") as caught:
        read_tensors(path)
    assert "model.safetensors" in str(caught.value)
    assert "to mend" in str(caught.value)


def test_tensors_do_not_change_when_the_file_does(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": torch.ones(64)})
    tensors = read_tensors(path)
    with path.open("r+b") as file:
        file.seek(-64, 2)
        file.write(bytes(64))
    assert torch.equal(tensors["a"], torch.ones(64))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop("bias"), "'bias' is missing"),
        (lambda t: t.update(extra=torch.ones(1)), "'extra' is not part of the model"),
        (lambda t: t.update(bias=torch.ones(5)), "size mismatch for bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, expected: str):
    layer = nn.Linear(3, 4)
    tensors = dict(layer.state_dict())
    change(tensors)
    with pytest.raises(CheckpointError, match=expected):
        load_weights(layer, tensors, source=Path("m.safetensors"))


def test_a_failed_save_leaves_the_old_files(tmp_path: Path):
    folder = tmp_path / "policy"
    with written_atomically(folder) as new:
        (new / "config.json").write_text("old")
    with pytest.raises(IsADirectoryError), written_atomically(folder) as new:
        new.write_text("this fails after the folder was made")
    assert (folder / "config.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]


def test_saving_again_replaces_what_it_writes_and_keeps_the_rest(tmp_path: Path):
    folder = tmp_path / "policy"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "loss.csv").write_text("1")
    (folder / "README.md").write_text("card")
    (folder / "config.json").write_text("old")
    with written_atomically(folder) as new:
        (new / "config.json").write_text("new")
    assert (folder / "config.json").read_text() == "new"
    assert (folder / "README.md").read_text() == "card"
    assert (folder / "logs" / "loss.csv").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]
