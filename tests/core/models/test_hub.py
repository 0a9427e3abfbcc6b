from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from fastvla_core.errors import CheckpointError
from fastvla_core.models.hub import find_checkpoint

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_folder_is_taken_as_it_is(tmp_path: Path):
    assert find_checkpoint(tmp_path) == tmp_path
    assert find_checkpoint(str(tmp_path)) == tmp_path


def test_a_file_and_a_missing_path_are_refused(tmp_path: Path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        find_checkpoint(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        find_checkpoint(tmp_path / "nowhere")


def test_an_unknown_short_name_is_refused():
    with pytest.raises(CheckpointError, match="no shipped policy 'nonsense'"):
        find_checkpoint("nonsense")


def test_offline_an_uncached_repository_is_one_clear_error(offline: Path):
    with pytest.raises(CheckpointError, match="cannot be reached") as caught:
        find_checkpoint("someone/some-policy")
    assert "download it once while online" in str(caught.value)


def test_offline_a_cached_repository_is_found(offline: Path):
    repository = offline / "models--someone--some-policy"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    assert find_checkpoint("someone/some-policy").samefile(snapshot)
