"""HDF5 demonstrations of robomimic and LIBERO become steps; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastvla_core.cli import main
from fastvla_core.errors import DatasetError
from training.cache import open_cache
from training.interop.hdf5_import import import_hdf5
from training.interop.imported import ImportOptions

h5py = pytest.importorskip("h5py")
FRAMES = (8, 5)


def write_libero(path: Path, *, joints: int = 6, task: str | None = "put the bowl on the plate"):
    """The layout of LIBERO's files: two demonstrations, pictures upside down."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if task is not None:
            data.attrs["problem_info"] = json.dumps({"language_instruction": task})
        for number, frames in enumerate(FRAMES):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = random.normal(size=(frames, 7))
            obs = demo.create_group("obs")
            for key in ("agentview_rgb", "eye_in_hand_rgb"):
                obs[key] = random.integers(0, 256, (frames, 12, 16, 3), np.uint8)
            obs["joint_states"] = random.uniform(-0.5, 0.2, (frames, joints))
            opening = random.uniform(0, 0.04, (frames, 1))
            obs["gripper_states"] = np.concatenate([opening, -opening], axis=1)


def options(contract, **others) -> ImportOptions:
    cameras = {"front": "agentview_rgb", "wrist": "eye_in_hand_rgb"}
    return ImportOptions(
        **{"contract": contract, "cameras": cameras, "action": "next_state", **others}
    )


def test_demonstrations_become_episodes_with_the_next_state_as_action(tmp_path, contract):
    file = tmp_path / "task.hdf5"
    write_libero(file)
    manifest = import_hdf5(file, tmp_path / "cache", options=options(contract), workers=1)
    cache = open_cache(tmp_path / "cache")
    assert [e.frames for e in manifest.episode_files] == [7, 4]
    assert manifest.rate_hz == 20.0
    assert cache.instructions == ["put the bowl on the plate"]
    with h5py.File(file) as content:
        obs = content["data/demo_0/obs"]
        joints, fingers = np.asarray(obs["joint_states"]), np.asarray(obs["gripper_states"])
        expected = np.concatenate([joints, abs(fingers[:, :1])], axis=1).astype(np.float32)
        assert np.array_equal(cache.state[:7], expected[:7])
        assert np.array_equal(cache.label[:7], expected[1:])
        assert np.array_equal(cache.images["front"][0], obs["agentview_rgb"][0])
    turned = options(contract, rotate_180=True, rate_hz=10.0)
    import_hdf5(file, tmp_path / "turned", options=turned, workers=1)
    half = open_cache(tmp_path / "turned")
    assert np.array_equal(half.images["front"][0], cache.images["front"][0][::-1, ::-1])
    assert np.array_equal(half.state[1], cache.state[2])


def test_a_folder_of_files_is_taken_and_a_broken_one_costs_itself_only(tmp_path, contract):
    for name in ("a", "b"):
        write_libero(tmp_path / f"{name}.hdf5", task=f"task {name}")
    content = (tmp_path / "b.hdf5").read_bytes()
    (tmp_path / "b.hdf5").write_bytes(content[: len(content) // 2])
    manifest = import_hdf5(tmp_path, tmp_path / "cache", options=options(contract), workers=1)
    assert manifest.instructions == ("task a",)
    (broken,) = manifest.skipped
    assert "b.hdf5: cannot be read" in broken.skipped


@pytest.mark.parametrize(
    ("written", "given", "words"),
    [
        ({"joints": 5}, {}, "has 5 joints, the contract 6"),
        ({"task": None}, {}, "does not say what the task was"),
        ({}, {"cameras": {}}, "has none of front, front_rgb, front_image"),
        ({}, {"action": "command"}, "increments of the tool"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, contract, written, given, words):
    write_libero(tmp_path / "task.hdf5", **written)
    with pytest.raises(DatasetError, match=words):
        import_hdf5(tmp_path, tmp_path / "cache", options=options(contract, **given), workers=1)


def test_a_camera_that_the_contract_lacks_is_refused(contract):
    with pytest.raises(DatasetError, match="'rear' is no camera"):
        options(contract, cameras={"rear": "x"})


def test_import_from_the_command_line(tmp_path, capsys):
    write_libero(tmp_path / "task.hdf5", task=None)
    cameras = ["--camera", "front=agentview_rgb", "--camera", "wrist=eye_in_hand_rgb"]
    others = ["--contract", "tabletop", "--instruction", "lift it", "--json"]
    file, out = str(tmp_path / "task.hdf5"), str(tmp_path / "cache")
    assert main(["data", "import", file, "--out", out, *cameras, *others]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["frames"], summary["instructions"]) == (11, ["lift it"])
    assert main(["data", "verify", str(tmp_path / "cache")]) == 0
