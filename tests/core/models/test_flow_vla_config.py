from __future__ import annotations

import json
from typing import Any

import pytest

from fastvla_core.errors import CheckpointError
from fastvla_core.models.policies.flow_vla.config import TransformerSize, config_from_dict
from fastvla_core.models.policies.flow_vla.model import FlowVLA

from .tiny import film_vision, tiny_config, vit_vision


@pytest.mark.parametrize("vision", [film_vision(), vit_vision()])
def test_config_json_and_back_gives_the_same(vision: dict[str, Any]):
    config = tiny_config(vision=vision, robot_contract={"name": "x"}, robot_contract_hash="12")
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_layout_is_lerobots():
    data = tiny_config().to_dict()
    assert data["type"] == "fastvla_flow"
    assert data["input_features"] == {
        "observation.images.front": {"type": "VISUAL", "shape": [3, 16, 24]},
        "observation.images.wrist": {"type": "VISUAL", "shape": [3, 16, 24]},
        "observation.state": {"type": "STATE", "shape": [3]},
    }
    assert data["output_features"] == {"action": {"type": "ACTION", "shape": [3]}}
    assert data["normalization_mapping"]["ACTION"] == "MEAN_STD"
    assert (data["chunk_size"], data["n_action_steps"]) == (4, 2)


def test_keys_of_other_tools_are_left_alone():
    assert config_from_dict({**tiny_config().to_dict(), "push_to_hub": False}) == tiny_config()


@pytest.mark.parametrize("key", ["input_features", "state_names", "vision", "attention"])
def test_a_missing_key_is_named(key: str):
    data = tiny_config().to_dict()
    del data[key]
    with pytest.raises(CheckpointError, match=rf"c\.json: the key '{key}' is missing"):
        config_from_dict(data, source="c.json")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"cameras": (), "optional_cameras": ()}, "no camera"),
        ({"optional_cameras": ("roof",)}, "optional camera"),
        ({"expert": TransformerSize(width=8, depth=3, mlp_width=8)}, "differ in depth"),
        ({"text": TransformerSize(width=8, depth=2, mlp_width=8)}, "differ in width"),
        ({"action_names": ("x", "gripper")}, "no state of its name"),
        ({"vision": {"type": "vit", "patch": 7}}, "vision"),
        ({"vision": {**film_vision(), "chanels": [3]}}, "vision"),
        ({"vision": {**vit_vision(), "patch": 7}}, "do not divide"),
        ({"vision": vit_vision(), "image_points": 4}, "not steered by words"),
        ({"image_points": -1}, "'image_points' is -1"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(others: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match=message):
        FlowVLA(tiny_config(**others))


def test_another_normalisation_is_refused_rather_than_ignored():
    data = {**tiny_config().to_dict(), "normalization_mapping": {"ACTION": "QUANTILES"}}
    with pytest.raises(CheckpointError, match="normalization_mapping"):
        config_from_dict(data)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("chunk_size", "8", "'chunk_size' is '8', expected int"),
        ("image_resolution", [96], "'image_resolution' has 1 entries, expected 2"),
        ("text", {"width": 32, "depth": 2.5, "mlp_width": 32}, "'text.depth' is 2.5"),
        ("action_dt_s", None, "'action_dt_s' is None, expected float"),
        ("robot_contract", "tabletop", "'robot_contract' is 'tabletop', expected keys and values"),
        ("input_features", ["observation.images.front"], "'input_features' is"),
        ("chunk_size", 0, "'chunk_size' is 0"),
        ("attention", {"heads": 4, "kv_heads": 0, "head_dim": 8}, "kv_heads"),
        ("min_period", -1.0, "'min_period' is -1.0"),
        ("n_action_steps", 5, "n_action_steps is larger than chunk_size"),
        ("vision", {}, "vision.type"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(key: str, value: Any, words: str):
    with pytest.raises(CheckpointError, match=words):
        config_from_dict({**tiny_config().to_dict(), key: value})
