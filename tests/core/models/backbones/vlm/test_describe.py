from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastvla_core import cli
from fastvla_core.models.registry import VLM_BACKBONES

from . import tiny
from .tiny import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_show_explains_a_backbone(family: str, capsys: pytest.CaptureFixture[str]):
    folder = tiny.saved(family)
    assert cli.main(["models", "show", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    backbone = tiny.loaded(family)
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    assert found["type"] == f"vision-language backbone, {model_type}"
    assert found["parameters"] == f"{backbone.num_parameters() / 1e6:.2f} M"
    assert found["language model"].startswith("2 layers of width 32, 4 heads")
    assert found["a 224 x 224 camera"].endswith(f"{backbone.num_image_tokens(224, 224)} tokens")
    assert found["precision"] == "F32"
    assert "NF4" in found["memory of the weights"]


def test_show_needs_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tiny.write_folder(tmp_path, "qwen3_vl")
    assert cli.main(["models", "show", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["weights"] == "not here"
    count = tiny.loaded("qwen3_vl").num_parameters()
    assert found["parameters"] == f"{count / 1e6:.2f} M"


def test_show_tells_how_a_backbone_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tiny.loaded("llava", quantization="nf4").save_pretrained(tmp_path)
    assert cli.main(["models", "show", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"].startswith("NF4 (")


def test_list_shows_every_backbone_with_size_and_licence(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["models", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in VLM_BACKBONES.names():
        entry = VLM_BACKBONES.load(name)
        assert entry.licence in found[f"  {name}"]
        assert f"{entry.parameters:g} B" in found[f"  {name}"]
