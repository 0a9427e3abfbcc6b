"""A cache goes to LeRobot's format and comes back; what does not fit is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from fastvla_core.cli import main
from fastvla_core.errors import DatasetError
from training.bags.writer import EpisodeWriter
from training.cache import build_cache, open_cache
from training.interop.imported import ImportOptions
from training.interop.lerobot_export import export_lerobot
from training.interop.lerobot_import import import_lerobot

parquet = pytest.importorskip("pyarrow.parquet")


def _picture(camera: int, k: int, *, height: int, width: int) -> np.ndarray:
    """A smooth picture that a video codec keeps, and that tells its step."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [40 + 10 * k + rows, 60 + 5 * k + columns, np.full_like(rows, 100 + 50 * camera)]
    return np.stack(channels, axis=2).astype(np.uint8)


@pytest.fixture
def robot(contract):
    """The table-top robot with cameras of a size that video wants."""
    cameras = tuple(dataclasses.replace(c, width=64, height=48) for c in contract.cameras)
    return dataclasses.replace(contract, cameras=cameras)


@pytest.fixture
def cache(tmp_path, robot):
    """Two episodes of 12 and 9 steps with two instructions, the second with a hole."""
    for number, frames in enumerate((12, 9)):
        folder = tmp_path / "bags" / f"e{number}"
        task = f"task {number}"
        with EpisodeWriter(folder, contract=robot, instruction=task) as writer:
            for k in range(frames):
                stamp_ns = 10**9 + (k + 5 * (number and k >= 4)) * 10**8
                for n, camera in enumerate(robot.policy_cameras):
                    image = _picture(n, k, height=48, width=64)
                    writer.image(camera.name, stamp_ns=stamp_ns, image=image)
                position = np.linspace(0.1, 0.2, 7) + 0.01 * k
                writer.joint_state(robot.state_names, stamp_ns=stamp_ns, positions=position)
                writer.command(
                    robot.action_names, stamp_ns=stamp_ns, positions=position + 0.01, duration_s=0.1
                )
            writer.close("success")
    build_cache([tmp_path / "bags"], tmp_path / "cache", contract=robot, workers=1)
    return open_cache(tmp_path / "cache")


def test_what_is_exported_comes_back(cache, tmp_path, robot):
    result = export_lerobot(cache, tmp_path / "lerobot")
    # The hole ends an episode.
    assert (result.episodes, result.frames, result.left_out) == (3, 21, 0)
    import_lerobot(tmp_path / "lerobot", tmp_path / "back", options=ImportOptions(contract=robot))
    back = open_cache(tmp_path / "back")
    assert np.array_equal(back.state, cache.state)
    assert np.array_equal(back.label, cache.label)
    assert np.array_equal(back.episode_start, cache.episode_start)
    tasks = [[c.instructions[i] for i in c.instruction_id] for c in (back, cache)]
    assert tasks[0] == tasks[1]
    for name in cache.cameras:
        difference = back.images[name][:].astype(int) - cache.images[name][:]
        assert abs(difference).mean() < 3, name
        # Not one frame off: a step changes a whole channel by 10.
        assert abs(difference.mean(axis=(1, 2))).max() < 4, name


def test_the_files_are_as_the_format_says(cache, tmp_path):
    folder = tmp_path / "lerobot"
    export_lerobot(cache, folder)
    info = json.loads((folder / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["fps"], info["total_episodes"], info["total_frames"]) == (10, 3, 21)
    assert info["features"]["observation.state"]["names"][-1] == "gripper"
    assert info["features"]["observation.images.front"]["shape"] == [48, 64, 3]
    tasks = parquet.read_table(folder / "meta/tasks.parquet")
    pandas = json.loads(tasks.schema.metadata[b"pandas"])
    assert pandas["index_columns"] == ["__index_level_0__"]
    assert tasks["__index_level_0__"].to_pylist() == ["task 0", "task 1"]
    episodes = parquet.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [e["length"] for e in episodes] == [12, 4, 5]
    assert [e["tasks"] for e in episodes] == [["task 0"], ["task 1"], ["task 1"]]
    assert [e["dataset_from_index"] for e in episodes] == [0, 12, 16]
    assert [e["videos/observation.images.wrist/from_timestamp"] for e in episodes] == [0, 1.2, 1.6]
    assert len(episodes[0]["stats/observation.state/q99"]) == 7
    assert np.shape(episodes[0]["stats/observation.images.front/mean"]) == (3, 1, 1)
    data = parquet.read_table(folder / "data/chunk-000/file-000.parquet")
    assert data["index"].to_pylist() == list(range(21))
    assert data["timestamp"].to_pylist()[11] == pytest.approx(1.1)
    stats = json.loads((folder / "meta/stats.json").read_text())
    assert stats["action"]["mean"] == pytest.approx(np.asarray(cache.label).mean(0).tolist())
    file = folder / "videos/observation.images.front/chunk-000/file-000.mp4"
    with av.open(str(file)) as video:
        times = [f.pts * f.time_base for f in video.decode(video=0)]
    assert times == [k / 10 for k in range(21)] or times == pytest.approx(np.arange(21) / 10)


def test_a_lower_rate_takes_the_last_action_before_the_next_step(cache, tmp_path, robot):
    export_lerobot(cache, tmp_path / "lerobot")
    options = ImportOptions(contract=robot, rate_hz=5.0)
    import_lerobot(tmp_path / "lerobot", tmp_path / "back", options=options)
    back = open_cache(tmp_path / "back")
    assert np.array_equal(back.state[:6], cache.state[0:12:2])
    assert np.array_equal(back.label[:6], cache.label[1:12:2])
    with pytest.raises(DatasetError, match="which 3 does not divide"):
        import_lerobot(
            tmp_path / "lerobot",
            tmp_path / "no",
            options=dataclasses.replace(options, rate_hz=3.0),
        )


def test_joints_are_found_by_name_and_cameras_by_key(cache, tmp_path, robot):
    folder = tmp_path / "lerobot"
    export_lerobot(cache, folder)
    info = json.loads((folder / "meta/info.json").read_text())
    names = info["features"]["observation.state"]["names"]
    for key in ("observation.state", "action"):
        info["features"][key]["names"] = {"motors": [f"{n}.pos" for n in reversed(names)]}
    (folder / "meta/info.json").write_text(json.dumps(info))
    options = ImportOptions(
        contract=robot, cameras={"front": "observation.images.wrist"}, action="next_state"
    )
    manifest = import_lerobot(folder, tmp_path / "back", options=options)
    back = open_cache(tmp_path / "back")
    assert np.array_equal(back.state[:11], cache.state[:11, ::-1])
    assert np.array_equal(back.label[:10], back.state[1:11])
    assert back.images["front"][0][0, 0, 2] == pytest.approx(150, abs=4)
    # The gripper's column is now a joint's: that cannot be.
    assert any("'gripper' is outside of its limits" in remark for remark in manifest.remarks)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i: i.update(codebase_version="v2.1"), "data set v2.1; v3.0 is read"),
        (lambda i: i["features"].pop("action"), "has no 'action'"),
        (lambda i: i["features"].pop("observation.images.wrist"), "no camera 'observation.images"),
        (lambda i: i["features"]["action"].update(names=list("abcdefg")), "no joint1"),
        (lambda i: i.pop("fps"), "is no LeRobot data set"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(
    cache, tmp_path, robot, change, words
):
    folder = tmp_path / "lerobot"
    export_lerobot(cache, folder)
    info = json.loads((folder / "meta/info.json").read_text())
    change(info)
    (folder / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=words) as caught:
        import_lerobot(folder, tmp_path / "back", options=ImportOptions(contract=robot))
    assert caught.value.mend
    assert not (tmp_path / "back").exists()


def test_a_video_that_ends_early_costs_its_episodes_only(cache, tmp_path, robot):
    folder = tmp_path / "lerobot"
    export_lerobot(cache, folder)
    file = folder / "videos/observation.images.front/chunk-000/file-000.mp4"
    short = tmp_path / "short.mp4"
    with av.open(str(file)) as source, av.open(str(short), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[:14]:
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    shutil.move(short, file)
    manifest = import_lerobot(folder, tmp_path / "back", options=ImportOptions(contract=robot))
    assert [e.frames for e in manifest.entries[0].episodes] == [12, 0, 0]
    assert "ends before frame" in manifest.entries[0].episodes[1].skipped


def test_steps_without_a_picture_are_left_out_and_counted(cache, tmp_path):
    present = cache.present.copy()
    present[5, 1] = False
    holed = dataclasses.replace(cache, present=present)
    result = export_lerobot(holed, tmp_path / "lerobot")
    assert (result.episodes, result.frames, result.left_out) == (4, 20, 1)
    none = dataclasses.replace(cache, present=np.zeros_like(present))
    with pytest.raises(DatasetError, match="no step of the cache has a picture"):
        export_lerobot(none, tmp_path / "none")


def test_export_and_import_from_the_command_line(cache, tmp_path, robot, capsys):
    cache_dir, folder = str(tmp_path / "cache"), str(tmp_path / "out")
    assert main(["data", "export", cache_dir, "--out", folder]) == 0
    assert "3 episodes, 21 frames" in capsys.readouterr().out
    assert main(["data", "export", cache_dir, "--out", folder]) == 1
    assert "exists already" in capsys.readouterr().err
    back = ["--out", str(tmp_path / "back"), "--contract", "tabletop", "--json"]
    assert main(["data", "import", folder, *back]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 21
    assert main(["data", "import", folder, *back, "--camera", "front"]) == 1
    assert "is no NAME=KEY" in capsys.readouterr().err
    assert Path(folder).is_dir()
