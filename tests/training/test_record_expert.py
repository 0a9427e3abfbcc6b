"""Demonstrations as bags: what the simulator gave comes back, whoever recorded it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from fastvla_core.cli import main
from fastvla_core.errors import DatasetError, SimError
from fastvla_core.policy import FastVLA
from fastvla_core.resources import share_path
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.sim.demonstrations import Demonstration, record_demonstration
from fastvla_core.sim.tabletop import TabletopEnvironment
from fastvla_core.types import Observation
from training.bags.episodes import episode_steps
from training.bags.inspection import inspect_bag
from training.bags.reader import open_bag
from training.record_expert import (
    Driver,
    _Worker,
    demonstration_task,
    record_expert_episodes,
    write_demonstration,
)


@pytest.fixture(scope="module")
def demonstration() -> Demonstration:
    with contextlib.closing(TabletopEnvironment()) as environment:
        return record_demonstration(environment, demonstration_task("reach", 5), 5)


def contents(folder: Path) -> dict[str, list[bytes]]:
    found = {}
    for metadata in sorted(folder.rglob("metadata.yaml")):
        with open_bag(metadata.parent) as bag:
            name = str(metadata.parent.relative_to(folder))
            found[name] = [bytes(m.data) for m in bag.messages()]
    return found


def test_a_demonstration_comes_back_bit_by_bit(demonstration, tmp_path):
    contract = load_contract("tabletop")
    write_demonstration(tmp_path / "demo", demonstration, contract=contract)
    with open_bag(tmp_path / "demo") as bag:
        assert not bag.problems
        assert "/expert_command" in bag.topics
        steps = episode_steps(bag, contract=contract)
    assert np.array_equal(steps.state, demonstration.state)
    assert np.array_equal(steps.label, demonstration.label)
    assert not np.array_equal(steps.label, demonstration.executed)
    for camera, images in demonstration.images.items():
        assert np.array_equal(steps.images[camera], images)
    assert list(np.diff(steps.stamp_ns)) == list(np.diff(demonstration.stamp_ns))
    assert steps.instruction == demonstration.instruction
    assert steps.outcome == "success"


def test_recording_goes_on_where_it_stopped_and_does_not_depend_on_the_workers(tmp_path, capsys):
    options = ["record", "--expert", "--task", "reach", "--episodes", "4", "--json"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*options, "--workers", "1", "--out", str(one)]) == 0
    whole = contents(one)
    assert len(whole) == 4
    before = (one / "reach" / "reach_00000" / "metadata.yaml").stat().st_mtime_ns

    # Killed: one episode is missing, another one was being written.
    shutil.rmtree(one / "reach" / "reach_00002")
    (one / "reach" / "reach_00003").rename(one / "reach" / "reach_00003.partial")
    capsys.readouterr()
    assert main([*options, "--workers", "2", "--out", str(one)]) == 0
    (counts,) = json.loads(capsys.readouterr().out)["tasks"]
    assert (counts["found"], counts["kept"]) == (2, 2)
    assert contents(one) == whole
    assert not list(one.rglob("*.partial"))
    assert (one / "reach" / "reach_00000" / "metadata.yaml").stat().st_mtime_ns == before

    assert main([*options, "--workers", "2", "--out", str(two)]) == 0
    assert contents(two) == whole


def test_settings_of_one_folder_do_not_mix(tmp_path):
    contract = load_contract("tabletop")
    record_expert_episodes(tmp_path, episodes={}, seed=1, contract=contract)
    with pytest.raises(DatasetError, match="another seed, noise, contract or policy"):
        record_expert_episodes(tmp_path, episodes={}, seed=2, contract=contract)


@pytest.mark.parametrize(
    ("episodes", "seed", "words"),
    [
        ({"dance": 1}, 0, "no task 'dance'"),
        ({"reach": 1}, 9_000_000, "seed 9000000"),
        ({"metaworld/reach-v3": 1}, 0, "is done by the robot 'metaworld', not by 'tabletop'"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path, episodes, seed, words):
    with pytest.raises((DatasetError, SimError), match=words) as info:
        record_expert_episodes(
            tmp_path / "out", episodes=episodes, seed=seed, contract=load_contract("tabletop")
        )
    assert info.value.mend
    assert not (tmp_path / "out").exists()


def test_an_empty_instruction_is_refused(tmp_path, capsys):
    assert main(["record", "--task", "  ", "--out", str(tmp_path / "x")]) == 1
    assert "the instruction is empty" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_killed_recording_leaves_whole_episodes_and_no_processes(tmp_path):
    command = [
        sys.executable, "-m", "fastvla_core.cli", "record", "--expert", "--task", "reach",
        "--episodes", "500", "--out", str(tmp_path),
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(tmp_path.rglob("metadata.yaml")) and time.monotonic() < end:
        time.sleep(0.05)
    workers = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.wait()
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert workers
    assert not any(map(psutil.pid_exists, workers))
    found = [path.parent for path in tmp_path.rglob("metadata.yaml")]
    assert found
    assert {inspect_bag(folder).verdict for folder in found} == {0}


def test_the_driver_acts_without_the_camera_that_its_episode_hides():
    contract = load_contract("tabletop")
    policy = FastVLA.from_pretrained("nano", contract=contract)
    random = np.random.default_rng(0)
    cameras = {c: random.integers(0, 256, (96, 96, 3), np.uint8) for c in policy.config.cameras}
    state = np.zeros(len(policy.config.state_names), np.float32)
    observation = Observation(stamp_ns=1, task="pick up the red cube", images=cameras, state=state)
    seen = {}
    for hidden in ("front", "wrist", None):
        dropout = {hidden: 1.0} if hidden else 0.0
        driver = Driver(policy=share_path("config/policies/nano"), camera_dropout=dropout)
        drive = _Worker(contract, driver).drive(seed=4)
        assert drive is not None
        seen[hidden] = drive(observation).positions
        expected = policy.infer(observation.without_cameras([hidden] if hidden else []))
        assert np.array_equal(seen[hidden], expected.positions)
    assert not np.array_equal(seen["front"], seen["wrist"])
    assert not np.array_equal(seen["front"], seen[None])
    assert _Worker(contract, None).drive(seed=4) is None


def test_from_the_command_line_a_policy_drives_first(tmp_path, capsys):
    options = ["record", "--expert", "--task", "pick", "--episodes", "1", "--workers", "1"]
    starts = []
    for name, more in (("expert", []), ("driven", ["--driver", "nano"])):
        assert main([*options, "--no-noise", *more, "--out", str(tmp_path / name)]) == 0
        with open_bag(tmp_path / name / "pick" / "pick_00000") as bag:
            starts.append(episode_steps(bag, contract=load_contract("tabletop")).state[0])
    # Where the expert took over, the policy had moved the arm.
    assert np.abs(starts[1] - starts[0]).max() > 0.02
    # A folder holds recordings of one kind.
    assert main([*options, "--no-noise", "--out", str(tmp_path / "driven")]) == 1
    capsys.readouterr()
    assert main([*options, "--driver", "nobody", "--out", str(tmp_path / "new")]) == 1
    assert "no shipped policy 'nobody'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
