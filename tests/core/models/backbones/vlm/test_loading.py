from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from fastvla_core.errors import CheckpointError, DependencyError
from fastvla_core.models.backbones.vlm.backend import TransformersBackbone
from fastvla_core.models.backbones.vlm.interface import VLMBackbone
from fastvla_core.models.checkpoint import read_tensors, write_tensors
from fastvla_core.models.registry import VLM_BACKBONES, VLM_FAMILIES

from . import tiny

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a backbone that may be spoilt."""
    return shutil.copytree(tiny.saved("paligemma"), tmp_path / "backbone")


def test_a_pickle_is_refused_with_the_command_that_converts_it(folder: Path):
    tensors = read_tensors(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is a pickle, which can run code") as caught:
        VLMBackbone.from_pretrained(folder)
    assert "save_file(torch.load('pytorch_model.bin'" in str(caught.value)


def test_missing_and_foreign_weights_are_named(folder: Path):
    tensors = read_tensors(folder / "model.safetensors")
    tensors["model.strange.weight"] = tensors.pop(_last_norm(tensors))
    write_tensors(folder / "model.safetensors", tensors)
    with pytest.raises(CheckpointError) as caught:
        VLMBackbone.from_pretrained(folder)
    assert "'model.language_model.norm.weight' is missing" in str(caught.value)
    assert "'model.strange.weight' is not part of the model" in str(caught.value)


def _last_norm(tensors: dict[str, torch.Tensor]) -> str:
    """Transformers writes the names of its first versions."""
    (name,) = (name for name in tensors if name.endswith("model.norm.weight"))
    return name


def test_a_weight_of_another_shape_is_named(folder: Path):
    tensors = read_tensors(folder / "model.safetensors")
    tensors[_last_norm(tensors)] = torch.ones(7)
    write_tensors(folder / "model.safetensors", tensors)
    with pytest.raises(
        CheckpointError, match=r"language_model\.norm\.weight' is \(7,\), expected \(32,\)"
    ):
        VLMBackbone.from_pretrained(folder)


def test_a_damaged_file_is_named(folder: Path):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        VLMBackbone.from_pretrained(folder)


def test_a_missing_tokenizer_is_named(folder: Path):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        VLMBackbone.from_pretrained(folder)


def test_an_unknown_family_is_refused_with_the_known_ones(folder: Path):
    (folder / "config.json").write_text(json.dumps({"model_type": "blip"}))
    with pytest.raises(CheckpointError, match=r"no backbone family 'blip'; known: .*qwen2_5_vl"):
        VLMBackbone.from_pretrained(folder)


def test_a_folder_of_something_else_is_refused(folder: Path):
    (folder / "config.json").write_text(json.dumps({"type": "smolvla"}))
    with pytest.raises(CheckpointError, match="'model_type' is missing"):
        VLMBackbone.from_pretrained(folder)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(CheckpointError, match=r"'qwen9'; known: .*qwen2\.5-vl-3b"):
        VLMBackbone.from_pretrained("qwen9")


def test_shards_are_read(folder: Path):
    tensors = read_tensors(folder / "model.safetensors")
    names = sorted(tensors)
    half = len(names) // 2
    table = {}
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        write_tensors(folder / file, {name: tensors[name] for name in part})
        table |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": table})
    )
    (folder / "model.safetensors").unlink()
    found, expected = VLMBackbone.from_pretrained(folder), tiny.loaded("paligemma")
    for name, parameter in expected.named_parameters():
        assert torch.equal(parameter, found.get_parameter(name))


@pytest.mark.parametrize("name", ["smolvlm2-256m", "HuggingFaceTB/SmolVLM2-256M-Video-Instruct"])
def test_offline_a_name_leads_to_the_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="cannot be reached"):
        VLMBackbone.from_pretrained(name)
    repository = tmp_path / "models--HuggingFaceTB--SmolVLM2-256M-Video-Instruct"
    shutil.copytree(tiny.saved("smolvlm"), repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    backbone = VLMBackbone.from_pretrained(name)
    assert isinstance(backbone, TransformersBackbone)
    assert backbone.origin == "HuggingFaceTB/SmolVLM2-256M-Video-Instruct"


def test_a_loaded_backbone_does_not_change_with_its_file(folder: Path):
    backbone = VLMBackbone.from_pretrained(folder)
    before = {name: p.clone() for name, p in backbone.named_parameters()}
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\0" * 4096)
    assert all(torch.equal(p, before[name]) for name, p in backbone.named_parameters())


def test_image_settings_of_the_checkpoint_are_kept(folder: Path):
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    backbone = VLMBackbone.from_pretrained(folder)
    assert isinstance(backbone, TransformersBackbone)
    assert backbone.recipe.mean == (0.1, 0.2, 0.3)
    assert backbone.recipe.std == (1.0, 2.0, 3.0)
    assert backbone.recipe.interpolation == "bilinear"
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1]}))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json is not as expected"):
        VLMBackbone.from_pretrained(folder)


def test_without_transformers_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DependencyError, match=r"pip install 'fastvla\[vlm\]'"):
        VLMBackbone.from_pretrained(folder)


def test_a_backbone_of_ones_own_is_found_by_entry_points(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    site = tmp_path / "site"
    (site / "own_vlm-1.0.dist-info").mkdir(parents=True)
    (site / "own_vlm-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: own-vlm\nVersion: 1.0\n"
    )
    (site / "own_vlm-1.0.dist-info" / "entry_points.txt").write_text(
        "[fastvla.backbones]\nown-3b = own_vlm:OWN_3B\n"
        "[fastvla.backbone_families]\nown_vlm = own_vlm:OwnVLM\n"
    )
    (site / "own_vlm.py").write_text(
        "from fastvla_core.models.backbones.vlm.catalogue import BackboneEntry\n"
        "from fastvla_core.models.backbones.vlm.paligemma import PaliGemma\n"
        "OWN_3B = BackboneEntry(\n"
        "    repo='me/own-3b', parameters=3.1, licence='MIT', aliases=('own',)\n)\n"
        "class OwnVLM(PaliGemma):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(site))
    assert "own-3b" in VLM_BACKBONES.names()
    entry = VLM_BACKBONES.load("own")
    assert entry is VLM_BACKBONES.load("own-3b") is VLM_BACKBONES.load("me/own-3b")
    assert str(entry) == "3.1 B parameters, MIT, me/own-3b; also own"
    assert VLM_FAMILIES.load("own_vlm").__name__ == "OwnVLM"
