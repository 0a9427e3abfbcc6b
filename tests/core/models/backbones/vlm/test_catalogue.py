from __future__ import annotations

import pytest

from fastvla_core.models.backbones.vlm.catalogue import PUBLISHED, BackboneEntry
from fastvla_core.models.registry import VLM_BACKBONES, VLM_FAMILIES


def test_names_aliases_and_repositories_are_each_one_backbone():
    names = list(PUBLISHED)
    aliases = [alias for entry in PUBLISHED.values() for alias in entry.aliases]
    repositories = [entry.repo for entry in PUBLISHED.values()]
    every = names + aliases + repositories
    assert len(set(every)) == len(every)
    for name, entry in PUBLISHED.items():
        assert VLM_BACKBONES.load(name) is entry is VLM_BACKBONES.load(entry.repo)
        assert name == name.lower()
        assert all(VLM_BACKBONES.load(alias) is entry for alias in entry.aliases)
        assert entry.repo.count("/") == 1
        assert "{" not in entry.repo
        assert entry.parameters > 0
        assert entry.licence


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("qwen2-vl-2b", "Qwen/Qwen2-VL-2B-Instruct"),
        ("qwen2.5-vl-3b", "Qwen/Qwen2.5-VL-3B-Instruct"),
        ("qwen3-vl-4b", "Qwen/Qwen3-VL-4B-Instruct"),
        ("paligemma-224", "google/paligemma-3b-pt-224"),
        ("paligemma2-10b-448", "google/paligemma2-10b-pt-448"),
        ("internvl3-1b", "OpenGVLab/InternVL3-1B-hf"),
        ("internvl3.5-4b", "OpenGVLab/InternVL3_5-4B-HF"),
        ("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf"),
        ("llava-onevision-0.5b", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"),
        ("florence-2-base", "florence-community/Florence-2-base"),
        ("smolvlm", "HuggingFaceTB/SmolVLM-Instruct"),
        ("gemma3-4b", "google/gemma-3-4b-it"),
        ("fastvlm-0.5b", "KamilaMila/FastVLM-0.5B"),
    ],
)
def test_every_family_has_its_sizes(name: str, repository: str):
    assert VLM_BACKBONES.load(name).repo == repository


def test_licences_that_forbid_products_say_so():
    assert "no commercial use" in PUBLISHED["qwen2.5-vl-3b"].licence
    assert "research only" in PUBLISHED["fastvlm-7b"].licence


def test_an_entry_of_ones_own_is_registered_at_run_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(VLM_BACKBONES, "_targets", {})
    here = f"{__name__}:OWN"
    VLM_BACKBONES.register("own", here)
    assert VLM_BACKBONES.load("own") is OWN is VLM_BACKBONES.load("mine")
    assert "own" in VLM_BACKBONES.names()


OWN = BackboneEntry(repo="me/own", parameters=1, licence="MIT", aliases=("mine",))


@pytest.mark.parametrize("family", VLM_FAMILIES.names())
def test_every_family_has_a_class(family: str):
    assert VLM_FAMILIES.load(family).network_class
