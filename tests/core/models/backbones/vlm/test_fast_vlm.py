"""FastVLM's tower is timm's, which runs only where torchvision does."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastvla_core.errors import DependencyError
from fastvla_core.models.backbones.vlm.interface import VLMBackbone

from . import tiny
from .tiny import ANSWERS, TEXTS


def timm_works() -> bool:
    if importlib.util.find_spec("timm") is None:
        return False
    code = [sys.executable, "-W", "ignore", "-c", "import timm"]
    return subprocess.run(code, check=False, capture_output=True).returncode == 0


needs_timm = pytest.mark.skipif(not timm_works(), reason="timm is not installed, or not usable")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_folder(tmp_path / "fast_vlm", "fast_vlm")


@needs_timm
def test_it_runs_trains_and_is_saved(folder: Path, tmp_path: Path, caplog):
    with caplog.at_level(logging.WARNING):
        backbone = VLMBackbone.from_config(folder)
    assert "licensed for research only" in caplog.text
    pixels = tiny.cameras("fast_vlm", rows=2, count=1)
    prefix = backbone.embed(backbone.encode_images(pixels), TEXTS, answers=ANSWERS)
    loss = backbone(prefix, labels=prefix.labels).loss
    assert loss is not None
    loss.backward()
    assert all(
        any(p.grad is not None for p in backbone.parameters_of(part))
        for part in ("vision", "projector", "language")
    )
    backbone.save_pretrained(tmp_path / "saved")
    again = VLMBackbone.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        ours, theirs = (b(b.embed(b.encode_images(pixels), TEXTS)) for b in (backbone, again))
    assert torch.equal(ours.last_hidden_bpd, theirs.last_hidden_bpd)


@pytest.mark.skipif(timm_works(), reason="timm is usable")
def test_without_timm_it_says_what_to_install(folder: Path):
    with pytest.raises(DependencyError, match="timm"):
        VLMBackbone.from_config(folder)
