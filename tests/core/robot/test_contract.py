"""A robot contract reads back what it wrote, and every mistake in it names its line and mend."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from pathlib import Path

import pytest
import yaml

from fastvla_core.errors import ContractError
from fastvla_core.resources import share_path
from fastvla_core.robot.contract import contract_differences
from fastvla_core.robot.contract_file import load_contract, parse_contract

TABLETOP = share_path("config/robots/tabletop.yaml")


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = TABLETOP.read_text()
    assert old in text
    path = tmp_path / "robot.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_shipped_contract_loads_by_name_and_by_path():
    assert load_contract("tabletop") == load_contract(TABLETOP)


def test_names_end_with_the_gripper():
    contract = load_contract("tabletop")
    assert contract.state_names == (*(f"joint{i}" for i in range(1, 7)), "gripper")
    assert [c.name for c in contract.policy_cameras] == ["front", "wrist"]


def test_plain_data_reads_back_to_an_equal_contract():
    contract = load_contract("tabletop")
    again = parse_contract(yaml.safe_load(yaml.safe_dump(contract.to_dict(), sort_keys=False)))
    assert again == contract
    assert again.hash() == contract.hash()


def test_hash_ignores_comments_but_not_limits(tmp_path: Path):
    commented = edited(tmp_path, "name: tabletop", "# a remark\nname: tabletop")
    assert load_contract(commented).hash() == load_contract("tabletop").hash()
    slower = edited(tmp_path, "max_velocity: 4.0", "max_velocity: 2.0")
    assert load_contract(slower).hash() != load_contract("tabletop").hash()


def test_differences_name_the_key_and_both_values():
    ours = load_contract("tabletop")
    theirs = dataclasses.replace(ours, control_rate_hz=20.0)
    assert contract_differences(ours, theirs) == ["control_rate_hz: 30.0 here, 20.0 there"]
    assert contract_differences(ours, ours) == []


def test_joint_order_is_a_difference():
    ours = load_contract("tabletop")
    theirs = dataclasses.replace(ours, joints=ours.joints[::-1])
    assert any(line.startswith("joint order") for line in contract_differences(ours, theirs))
    assert ours.hash() != theirs.hash()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max_skew_s: 0.05", "max_scew_s: 0.05", ["max_scew_s", "max_skew_s"]),
        ("encoding: rgb8", "encoding: rgb9", ["rgb9", "bgr8"]),
        ("width: 96", "width: wide", ["'wide'", "int"]),
        ("width: 96", "width: 0", ["more than 0"]),
        ("transport: raw", "transport: pigeon", ["pigeon", "compressed"]),
        ("lower: -2.8, upper: 2.8", "lower: 2.9, upper: 2.8", ["2.9", "not below upper"]),
        ("lower: -2.8, upper", "lower: .nan, upper", ["finite"]),
        ("encoding: rgb8", "encoding: 32FC1", ["32FC1", "kind: depth"]),
        ("transport: raw", "transport: compressed_depth", ["for distances", "kind: depth"]),
        ("interface: joint_trajectory", "interface: twist", ["no section outputs.twist", "urdf"]),
        ("interface: joint_trajectory", "interface: wrench", ["wrench", "joint_jog, twist"]),
    ],
)
def test_a_mistake_names_line_and_expectation(tmp_path: Path, old: str, new: str, words: list[str]):
    path = edited(tmp_path, old, new)
    with pytest.raises(ContractError) as caught:
        load_contract(path)
    number = next(i for i, t in enumerate(path.read_text().splitlines(), 1) if new in t)
    text = str(caught.value)
    assert f"{path}:{number}" in text
    assert all(word in text for word in words)
    assert caught.value.mend


DEPTH = """encoding: 16UC1
    kind: depth
    transport: """


@pytest.mark.parametrize(
    ("transport", "topic"),
    [
        ("raw", "front/image_raw"),
        ("compressed", "front/image_raw/compressed"),
        ("compressed_depth", "front/image_raw/compressedDepth"),
    ],
)
def test_a_topic_is_completed_as_image_transport_does_it(
    tmp_path: Path, transport: str, topic: str
):
    path = edited(tmp_path, "encoding: rgb8\n    transport: raw", DEPTH + transport)
    front = load_contract(path).camera("front")
    assert front.topic == topic
    assert dataclasses.replace(front, topic=topic).topic == topic
    assert front.transport_topics[0] == topic
    assert set(front.transport_topics) == {
        "front/image_raw", "front/image_raw/compressed", "front/image_raw/compressedDepth",
    }  # fmt: skip


def test_depth_cameras_are_observed_apart_from_the_policy_s(tmp_path: Path):
    path = edited(tmp_path, "encoding: rgb8\n    transport: raw", DEPTH + "compressed_depth")
    contract = load_contract(path)
    assert [c.name for c in contract.observed_cameras] == ["front", "wrist"]
    assert [c.name for c in contract.policy_cameras] == ["wrist"]


def test_compressed_floats_are_refused(tmp_path: Path):
    path = edited(
        tmp_path,
        "encoding: rgb8\n    transport: raw",
        (DEPTH + "compressed").replace("16UC1", "32FC1"),
    )
    with pytest.raises(ContractError, match="cannot carry 32FC1"):
        load_contract(path)


def test_the_driver_s_names_are_the_joint_states_names_read_backwards():
    contract = load_contract("tabletop")
    renamed = dataclasses.replace(
        contract.joint_states, names=(("finger", "gripper"), ("shoulder", "joint1"))
    )
    names = dataclasses.replace(contract, joint_states=renamed).driver_names
    assert (names["gripper"], names["joint1"], names["joint2"]) == ("finger", "shoulder", "joint2")


TWIST = """interface: twist
  twist:
    urdf: arm.urdf
    base: base_link
    tool: tool0
    max_linear: 0.2
    max_angular: 1.0
    frame: base"""


def test_a_twist_section_reads_back(tmp_path: Path):
    path = edited(tmp_path, "interface: joint_trajectory", TWIST)
    contract = load_contract(path)
    assert contract.outputs.twist is not None
    assert contract.outputs.twist.max_linear == 0.2
    assert contract.outputs.sends_velocities
    assert parse_contract(contract.to_dict()) == contract
    with pytest.raises(ContractError, match=r"outputs\.twist\.max_linear' is 0\.0"):
        load_contract(edited(tmp_path, "interface: joint_trajectory", TWIST.replace("0.2", "0.0")))


def test_the_hash_outlives_keys_at_their_default_and_the_cameras_order():
    contract = load_contract("tabletop")
    data = contract.to_dict()
    for camera in data["cameras"].values():
        del camera["kind"], camera["depth_unit_m"]
    data["outputs"] = {"interface": "joint_trajectory"}
    data["cameras"] = dict(reversed(data["cameras"].items()))
    assert parse_contract(data).hash() == contract.hash()
    data["outputs"]["interface"] = "joint_jog"
    assert parse_contract(data).hash() != contract.hash()


def test_missing_key_is_named(tmp_path: Path):
    path = edited(tmp_path, "control_rate_hz: 30.0\n", "")
    with pytest.raises(ContractError, match="control_rate_hz"):
        load_contract(path)


def test_missing_file_and_broken_yaml_are_contract_errors(tmp_path: Path):
    with pytest.raises(ContractError, match="cannot be read"):
        load_contract(tmp_path / "none.yaml")
    with pytest.raises(ContractError, match="no shipped robot contract 'nobody'"):
        load_contract("nobody")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\n")
    with pytest.raises(ContractError, match="not valid YAML"):
        load_contract(broken)


def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path: Path):
    path = edited(tmp_path, "frame_id: base_link", "frame_id: base_link\nframe_id: tool0")
    with pytest.raises(ContractError, match=r"robot\.yaml:6: 'frame_id' is there twice.* line 5"):
        load_contract(path)


@pytest.mark.parametrize("name", ["joint_states", "left/front"])
def test_a_camera_must_not_take_a_stream_or_a_path_for_its_name(tmp_path: Path, name: str):
    with pytest.raises(ContractError, match="cannot be a camera's name"):
        load_contract(edited(tmp_path, "  wrist:", f"  {name}:"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00", "no text"),
        (b"a: !!python/object:os.system {}\n", "not valid YAML"),
        (b"? [a, b]\n: 1\n", "not valid YAML"),
        (b"a: &x {b: *x}\n", "not valid YAML"),
        (b"", "expected keys and values"),
    ],
)
def test_a_file_that_is_no_contract_is_refused_in_words(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "robot.yaml"
    path.write_bytes(content)
    with pytest.raises(ContractError, match=words):
        load_contract(path)


def test_a_folder_of_the_same_name_does_not_hide_the_shipped_contract(tmp_path: Path, monkeypatch):
    (tmp_path / "tabletop").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_contract("tabletop").name == "tabletop"


def paths(data: object, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [prefix] if prefix else []
    if isinstance(data, dict):
        for key, value in data.items():
            found += paths(value, (*prefix, key))
    return found


@pytest.mark.parametrize(
    "junk", [None, True, 0, -1.5, float("nan"), "", "x", [], [1], {}, {"a": 1}]
)
def test_no_value_in_any_place_gives_anything_but_a_contract_or_a_contract_error(junk: object):
    whole = load_contract("tabletop").to_dict()
    for path in paths(whole):
        data = copy.deepcopy(whole)
        at = data
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = junk
        with contextlib.suppress(ContractError):
            parsed = parse_contract(data)
            assert parse_contract(parsed.to_dict()) == parsed, path


@pytest.mark.parametrize("path", sorted(TABLETOP.parent.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_contract_loads_by_its_name_and_reads_back(path: Path):
    contract = load_contract(path.stem)
    assert contract.name == path.stem
    assert parse_contract(contract.to_dict()) == contract


def test_the_example_of_a_real_robot_reads_compressed_cameras_and_keeps_depth_apart():
    contract = load_contract("franka_fr3")
    assert contract.camera("front").topic == "front/color/image_raw/compressed"
    assert contract.camera("wrist_depth").topic.endswith("/compressedDepth")
    assert [c.name for c in contract.observed_cameras] == ["front", "wrist"]
    assert len(contract.action_names) == 8
