"""What a composed policy's config refuses, and what it keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastvla_core.errors import CheckpointError
from fastvla_core.models.policies.vla.config import read_vla_config

from .tiny import head, vla_config

CROSS = {"type": "cross_attention", "depth": 1, "heads": 4}
BINS = head("bins")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"head": {"width": 32}}, "'head.type' is missing"),
        ({"head": {"type": "diffusion"}}, "no action head 'diffusion'"),
        ({"head": {"type": "flow", "wdith": 3}}, "'head.wdith' is not a known key"),
        ({"head": {"type": "flow", "width": "wide"}}, "'head.width' is 'wide', expected int"),
        ({"head": {"type": "flow", "attention": "self"}}, "expected one of joint, cross"),
        ({"head": {"type": "fast"}}, "misses the key 'action_tokenizer'"),
        ({"auxiliary_head": {"type": "bins", "bins": 1}}, "1 bins"),
        ({"fusion": {"type": "addition"}}, "no fusion {'type': 'addition'}"),
        ({"fusion": {"type": "tokens", "depth": 2}}, "no fusion"),
        ({"fusion": {"type": "cross_attention", "depth": 0}}, "fusion of depth 0"),
        ({"head": BINS, "max_prefix_steps": 2}, "'bins' cannot be given the first steps"),
        ({"max_prefix_steps": 4}, "'max_prefix_steps' is 4 of 4"),
        ({"knowledge_insulation": True}, "nothing to train the backbone by"),
        (
            {"knowledge_insulation": True, "frozen": ("all",), "fusion": CROSS},
            "nothing to train the fusion by",
        ),
        (
            {
                "head": {"type": "fast", "action_tokenizer": "a"},
                "auxiliary_head": {"type": "fast", "action_tokenizer": "b"},
            },
            "both 'fast'",
        ),
        ({"n_action_steps": 5}, "n_action_steps is larger than chunk_size"),
    ],
)
def test_what_cannot_be_is_refused(others: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match=message):
        vla_config(Path("here"), **others)


def test_insulation_goes_with_an_auxiliary_head_or_a_frozen_backbone():
    vla_config(Path("here"), knowledge_insulation=True, frozen=("all",))
    vla_config(Path("here"), knowledge_insulation=True, auxiliary_head=BINS, fusion=CROSS)


def test_a_config_comes_back_from_its_file(tmp_path: Path):
    config = vla_config(
        tmp_path,
        head=head("flow", attention="joint", layers=[0, -1]),
        auxiliary_head=BINS,
        fusion=CROSS,
        frozen=("vision",),
        knowledge_insulation=True,
        max_prefix_steps=2,
    )
    data = json.loads(json.dumps(config.to_dict()))
    assert data["type"] == "fastvla_vla"
    assert "folder" not in data
    assert read_vla_config(data, folder=tmp_path) == config


def test_only_flows_continue_plans():
    assert vla_config(Path("here")).conditionings == ("inpaint",)
    assert vla_config(Path("here"), max_prefix_steps=2).conditionings == ("inpaint", "trained")
    assert vla_config(Path("here"), head=BINS).conditionings == ()
    assert vla_config(Path("here")).flow_steps == 3
    assert vla_config(Path("here"), head=BINS).flow_steps is None
