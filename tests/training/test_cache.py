"""The cache: the steps of many bags, resumable, the same whoever wrote it and however often."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from fastvla_core.cli import main
from fastvla_core.errors import DatasetError
from tests.core.bags.small_disk import can_mount, python_on_small_disk
from training.bags import messages
from training.bags.episodes import align_episode, episode_steps
from training.bags.reader import open_bag
from training.bags.splitting import parse_split
from training.bags.writer import EpisodeWriter
from training.cache import Conversion, Pictures, build_cache, find_bags, open_cache
from training.cache_build import convert_bags, in_processes
from training.cache_folder import _CacheFolder, take_over
from training.cache_verify import verify_cache
from training.dataset import StepDataset


@pytest.fixture
def bags(write_episode, tmp_path) -> Path:
    """Five episodes of different lengths; the fourth has a hole, the last one failed."""
    for k in range(5):
        write_episode(
            f"bags/e{k}",
            frames=10 + k,
            instruction=f"task {k % 2}",
            outcome="failure" if k == 4 else "success",
            leave_out=lambda s, i, k=k: k == 3 and s == "front" and i in (5, 6, 7),
        )
    return tmp_path / "bags"


@pytest.mark.parametrize("can_link", [True, False])
def test_a_cache_that_takes_another_over_converts_only_what_is_new(
    bags, tmp_path, contract, monkeypatch, can_link
):
    first, both = tmp_path / "first", tmp_path / "both"
    build_cache([bags / "e0", bags / "e1"], first, contract=contract, workers=1)
    before = digest(first)
    if not can_link:
        monkeypatch.setattr(Path, "hardlink_to", lambda *given: os.link(tmp_path / "none", "x"))
    for _ in range(2):
        take_over(first, both)
    converted = []
    build_cache(
        [bags / "e0", bags / "e1", bags / "e2"], both, contract=contract, workers=1,
        progress=lambda done, total, frames: converted.append((done, total)),
    )  # fmt: skip
    assert converted == [(3, 3)]
    # What was taken over and is no longer wanted goes from the new one only.
    build_cache([bags / "e1", bags / "e2"], both, contract=contract, workers=1)
    assert digest(first) == before
    build_cache([bags / "e1", bags / "e2"], tmp_path / "anew", contract=contract, workers=1)
    assert digest(both) == digest(tmp_path / "anew")


def test_a_folder_of_other_files_is_not_taken_for_a_cache(bags, tmp_path, contract):
    build_cache([bags], tmp_path / "first", contract=contract, workers=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("all of it")
    with pytest.raises(DatasetError, match="holds other files"):
        take_over(tmp_path / "first", tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def digest(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def convert(bags: Path, out: Path, contract, **options):
    conversion = Conversion(contract=contract, **options)
    return convert_bags([bags], out, conversion=conversion, run=in_processes(1))


def test_the_cache_holds_the_steps_of_every_successful_episode(bags, tmp_path, contract):
    manifest = build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    cache = open_cache(tmp_path / "cache")
    assert manifest == cache.manifest
    at = 0
    for name in ("e0", "e1", "e2", "e3"):
        with open_bag(bags / name) as bag:
            steps = episode_steps(bag, contract=contract)
        rows = slice(at, at + len(steps))
        for camera, images in steps.images.items():
            assert np.array_equal(cache.images[camera][rows], images)
        assert np.array_equal(cache.present[rows], steps.image_present)
        assert np.array_equal(cache.state[rows], steps.state)
        assert np.array_equal(cache.label[rows], steps.label)
        assert np.array_equal(cache.stamp_ns[rows], steps.stamp_ns)
        assert {cache.instructions[i] for i in cache.instruction_id[rows]} == {steps.instruction}
        at += len(steps)
    assert len(cache) == manifest.frames == at
    assert manifest.episodes == 4
    (skipped,) = manifest.skipped
    assert "outcome is 'failure'" in skipped.skipped
    assert not skipped.failed
    assert cache.cameras == ("front", "wrist")


def test_a_hole_begins_another_episode(bags, tmp_path, contract):
    build_cache([bags / "e3"], tmp_path / "cache", contract=contract, workers=1)
    cache = open_cache(tmp_path / "cache")
    assert list(cache.episode_start) == [0] * 5 + [5] * 5
    assert list(cache.episode_end) == [5] * 5 + [10] * 5


def test_building_again_reads_nothing_and_changes_nothing(bags, tmp_path, contract, monkeypatch):
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    before = digest(tmp_path / "cache")
    monkeypatch.setattr("training.cache_build.open_bag", None)
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    assert digest(tmp_path / "cache") == before


@pytest.mark.parametrize("survives", [0, 1, 3])
def test_an_interrupted_build_goes_on_where_it_stopped(
    bags, tmp_path, contract, monkeypatch, survives
):
    build_cache([bags], tmp_path / "whole", contract=contract, workers=1)
    keep, kept = _CacheFolder.keep, []

    def killed(self, entry):
        if len(kept) == survives:
            # Between the episode and the note of it.
            raise KeyboardInterrupt
        kept.append(entry)
        keep(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(_CacheFolder, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    with pytest.raises(DatasetError, match="not a finished cache"):
        open_cache(tmp_path / "cache")
    (tmp_path / "cache" / "episodes" / "x.episode.1.tmp").write_bytes(b"half")
    read = []

    def counted(self, entry):
        read.append(entry)
        keep(self, entry)

    monkeypatch.setattr(_CacheFolder, "keep", counted)
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    assert len(read) == 5 - survives
    assert digest(tmp_path / "cache") == digest(tmp_path / "whole")


_KILLED = """
import os, signal, sys
from fastvla_core.cli import main
from training.bags import episodes
keep, seen = episodes._Stepper._keep, []
def dying(self, observation):
    seen.append(1)
    if len(seen) == 25:
        os.kill(os.getpid(), signal.SIGKILL)
    keep(self, observation)
episodes._Stepper._keep = dying
main(["data", "convert", sys.argv[1], "--out", sys.argv[2], "--workers", "1"])
"""


def test_a_converter_killed_in_the_middle_of_an_episode_leaves_whole_ones(bags, tmp_path, contract):
    convert(bags, tmp_path / "whole", contract)
    command = [sys.executable, "-c", _KILLED, str(bags), str(tmp_path / "cache")]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    left = list((tmp_path / "cache" / "episodes").iterdir())
    assert sorted(path.suffix for path in left) == [".episode", ".episode", ".tmp"]
    convert(bags, tmp_path / "cache", contract)
    assert digest(tmp_path / "cache") == digest(tmp_path / "whole")


_FULL = """
import sys
from pathlib import Path
from fastvla_core.errors import DatasetError
from training.cache_build import Conversion, convert_bags, in_processes
from training.bags.reader import open_bag
with open_bag(next(Path({bags!r}).iterdir())) as bag:
    contract = bag.contract
try:
    conversion = Conversion(contract=contract)
    out = Path(sys.argv[1]) / "cache"
    convert_bags([Path({bags!r})], out, conversion=conversion, run=in_processes(1))
except DatasetError as error:
    print(error)
print(sorted(path.suffix for path in (Path(sys.argv[1]) / "cache" / "episodes").iterdir()))
"""


@pytest.mark.skipif(not can_mount(), reason="cannot mount a small disk here")
def test_a_full_disk_is_said_and_what_is_whole_is_kept(bags, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    printed = python_on_small_disk(_FULL.format(bags=str(bags)), folder=folder, size="48k")
    assert "the disk is full; the episodes that are complete are kept" in printed
    assert "run the same command again" in printed
    assert printed.splitlines()[-1].strip("[]").replace("'.episode'", "").strip(", ") == ""


def test_more_workers_write_the_same_bytes(bags, tmp_path, contract):
    build_cache([bags], tmp_path / "one", contract=contract, workers=1)
    build_cache([bags], tmp_path / "two", contract=contract, workers=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_new_bags_are_added(bags, write_episode, tmp_path, contract):
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    write_episode("bags/e9", frames=7)
    manifest = build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    build_cache([bags], tmp_path / "fresh", contract=contract, workers=1)
    assert manifest.entries[-1].frames == 7
    assert digest(tmp_path / "cache") == digest(tmp_path / "fresh")


def test_a_changed_bag_or_setting_begins_anew(bags, write_episode, tmp_path, contract):
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    shutil.rmtree(bags / "e0")
    write_episode("bags/e0", frames=3)
    assert (
        build_cache([bags], tmp_path / "cache", contract=contract, workers=1).entries[0].frames == 3
    )
    slow = build_cache([bags], tmp_path / "cache", contract=contract, rate_hz=5.0, workers=1)
    assert slow.entries[1].frames == 5
    assert open_cache(tmp_path / "cache").manifest.rate_hz == 5.0


def test_a_touched_bag_is_recognised_by_its_content(bags, tmp_path, contract, monkeypatch):
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    os.utime(bags / "e0" / "e0_0.mcap")
    monkeypatch.setattr("training.cache_build.open_bag", None)
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)


def test_a_broken_bag_is_skipped_with_its_reason(bags, tmp_path, contract):
    (bags / "e1" / "e1_0.mcap").write_bytes(b"hello")
    manifest = build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    (broken,) = [e for e in manifest.entries if e.failed]
    assert broken.source.endswith("e1")
    assert "neither an mcap" in broken.skipped
    assert manifest.episodes == 3


def test_a_surprise_in_one_bag_does_not_end_the_others(bags, tmp_path, contract, monkeypatch):
    def surprise(bag, **options):
        if bag.path.name == "e1":
            raise ZeroDivisionError("oh")
        return align_episode(bag, **options)

    monkeypatch.setattr("training.cache_build.align_episode", surprise)
    manifest = build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    (broken,) = [e for e in manifest.entries if e.failed]
    assert "ZeroDivisionError: oh" in broken.skipped


def test_nothing_usable_is_an_error_with_the_reasons(write_episode, tmp_path, contract):
    folder = write_episode(outcome="failure")
    with pytest.raises(DatasetError, match="outcome is 'failure'"):
        build_cache([folder], tmp_path / "cache", contract=contract)
    assert build_cache([folder], tmp_path / "cache", contract=contract, outcomes=None).frames == 10


def test_bags_are_found_in_order_below_folders(bags, tmp_path):
    assert [b.name for b in find_bags([bags, bags / "e1"])] == ["e0", "e1", "e2", "e3", "e4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no recording"):
        find_bags([tmp_path / "empty"])
    with pytest.raises(DatasetError, match="does not exist"):
        find_bags([tmp_path / "nowhere"])


def test_a_broken_episode_is_found_and_only_it_is_made_anew(bags, tmp_path, contract, monkeypatch):
    cache = tmp_path / "cache"
    build_cache([bags], cache, contract=contract, workers=1)
    whole = digest(cache)
    assert verify_cache(cache).problems == ()
    files = [cache / e.file for e in open_cache(cache).manifest.episode_files]
    content = bytearray(files[1].read_bytes())
    content[200] ^= 1
    files[1].write_bytes(content)
    (problem,) = verify_cache(cache).problems
    assert str(files[1]) in problem
    assert "checksum" in problem
    assert "delete this file" in problem
    files[1].unlink()
    with pytest.raises(DatasetError, match="delete this file and run"):
        open_cache(cache)
    read = []
    monkeypatch.setattr(
        "training.cache_build.align_episode",
        lambda bag, **options: (read.append(bag.path.name), align_episode(bag, **options))[1],
    )
    build_cache([bags], cache, contract=contract, workers=1)
    assert read == ["e1"]
    assert digest(cache) == whole


def test_a_cut_episode_is_refused_and_made_anew(bags, tmp_path, contract):
    cache = tmp_path / "cache"
    build_cache([bags], cache, contract=contract, workers=1)
    whole = digest(cache)
    file = cache / open_cache(cache).manifest.episode_files[0].file
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DatasetError, match="it is cut"):
        open_cache(cache)
    build_cache([bags], cache, contract=contract, workers=1)
    assert digest(cache) == whole


def test_verify_says_what_changed_from_the_command_line(bags, tmp_path, contract, capsys):
    cache = tmp_path / "cache"
    build_cache([bags], cache, contract=contract, workers=1)
    shutil.rmtree(bags / "e2")
    assert main(["data", "verify", str(cache)]) == 0
    assert "e2: is no longer there" in capsys.readouterr().out
    (cache / "manifest.json").write_text("{")
    assert main(["data", "verify", str(cache), "--json"]) == 1
    assert "cannot be used" in json.loads(capsys.readouterr().out)["problems"][0]


def test_jpeg_pictures_are_scaled_and_close(write_episode, tmp_path, contract):
    folder = write_episode()
    how = Pictures(format="jpeg", longest_side=8)
    convert(folder, tmp_path / "jpeg", contract, pictures=how)
    cache = open_cache(tmp_path / "jpeg")
    assert cache.images["front"][:].shape == (10, 6, 8, 3)
    convert(folder, tmp_path / "raw", contract, pictures=Pictures(format="raw", longest_side=8))
    exact = open_cache(tmp_path / "raw").images["front"][:]
    assert not np.array_equal(cache.images["front"][:], exact)
    # Noise of a few pixels is the worst that JPEG can be given.
    assert abs(cache.images["front"][:].astype(int) - exact).mean() < 25
    assert verify_cache(tmp_path / "jpeg").problems == ()


def test_a_jpeg_of_higher_quality_is_larger_and_closer(write_episode, tmp_path, contract):
    folder = write_episode()
    found = {}
    for name, how in {
        "coarse": Pictures(format="jpeg", quality=40),
        "usual": Pictures(format="jpeg"),
        "exact": Pictures(format="raw"),
    }.items():
        convert(folder, tmp_path / name, contract, pictures=how)
        found[name] = open_cache(tmp_path / name).images["front"]
    exact = found["exact"][:].astype(int)
    assert found["coarse"].stored_bytes < found["usual"].stored_bytes
    assert abs(found["usual"][:] - exact).mean() < abs(found["coarse"][:] - exact).mean()
    with pytest.raises(DatasetError, match="JPEG quality 101"):
        Pictures(quality=101)


def jpeg_recording(folder: Path, contract, *, files: list[bytes], format: str = "jpeg"):
    """One JPEG message per camera and step of 0.1 s; the contract that goes with it."""
    cameras = tuple(dataclasses.replace(c, transport="compressed") for c in contract.cameras)
    contract = dataclasses.replace(contract, cameras=cameras)
    types, kind = messages.typestore().types, messages.COMPRESSED_IMAGE
    with EpisodeWriter(folder, contract=contract, instruction="x") as writer:
        for k, file in enumerate(files):
            stamp_ns = 10**9 + k * 10**8
            header = types["std_msgs/msg/Header"](stamp=messages.stamp_of(stamp_ns), frame_id="")
            data = np.frombuffer(file, np.uint8)
            message = types[kind](header=header, format=format, data=data)
            for camera in contract.policy_cameras:
                writer.write(camera.topic, type_name=kind, message=message, stamp_ns=stamp_ns)
            writer.joint_state(contract.state_names, stamp_ns=stamp_ns, positions=np.zeros(7))
        writer.close("success")
    return contract


def jpeg_files(count: int) -> list[bytes]:
    """Coarse ones: packed anew they would be other pictures."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (count, 12, 16, 3), np.uint8)
    return [
        cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes()
        for pixels in noise
    ]


def test_jpeg_files_are_kept_as_they_were_recorded(tmp_path, contract):
    files = jpeg_files(8)
    packed = jpeg_recording(tmp_path / "bag", contract, files=files)
    options = {"action": "next_state", "pictures": Pictures(format="jpeg")}
    convert(tmp_path / "bag", tmp_path / "cache", packed, **options)
    cache = open_cache(tmp_path / "cache")
    with open_bag(tmp_path / "bag") as bag:
        steps = episode_steps(bag, contract=packed, action="next_state")
    assert len(cache) == len(steps) == 7
    for camera, pixels in steps.images.items():
        # What the live node sees, byte for byte.
        assert np.array_equal(cache.images[camera][:], pixels)
        assert cache.images[camera].stored_bytes == sum(map(len, files[:7]))
    assert verify_cache(tmp_path / "cache").problems == ()


def test_jpeg_files_of_another_size_are_packed_anew(tmp_path, contract):
    packed = jpeg_recording(tmp_path / "bag", contract, files=jpeg_files(4))
    options = {"action": "next_state", "pictures": Pictures(format="jpeg", longest_side=8)}
    convert(tmp_path / "bag", tmp_path / "cache", packed, **options)
    assert open_cache(tmp_path / "cache").images["front"][:].shape == (3, 6, 8, 3)


def test_jpeg_files_whose_colours_only_the_message_tells_are_packed_anew(tmp_path, contract):
    blue = np.full((12, 16, 3), (220, 40, 20), np.uint8)
    files = [cv2.imencode(".jpg", blue)[1].tobytes()] * 4
    packed = jpeg_recording(
        tmp_path / "bag", contract, files=files, format="rgb8; jpeg compressed rgb8"
    )
    options = {"action": "next_state", "pictures": Pictures(format="jpeg")}
    convert(tmp_path / "bag", tmp_path / "cache", packed, **options)
    pixels = open_cache(tmp_path / "cache").images["front"][:]
    # The file alone says BGR; the message says that it was compressed as RGB.
    assert np.abs(pixels.astype(int) - (220, 40, 20)).max() < 12


def test_a_jpeg_that_is_damaged_inside_looks_as_it_does_live(tmp_path, contract):
    files = jpeg_files(8)
    files[3] = files[3][:100] + files[3][-2:]
    packed = jpeg_recording(tmp_path / "bag", contract, files=files)
    options = {"action": "next_state", "pictures": Pictures(format="jpeg")}
    convert(tmp_path / "bag", tmp_path / "cache", packed, **options)
    cache = open_cache(tmp_path / "cache")
    with open_bag(tmp_path / "bag") as bag:
        steps = episode_steps(bag, contract=packed, action="next_state")
    assert np.array_equal(cache.images["front"][:], steps.images["front"])
    assert verify_cache(tmp_path / "cache").problems == ()


@pytest.mark.parametrize("format", ["raw", "jpeg"])
def test_a_batch_holds_the_pictures_of_its_frames(tmp_path, contract, format):
    """Raw ones are in memory, JPEGs are unpacked; cameras differ in size."""
    front, *others = contract.cameras
    contract = dataclasses.replace(
        contract, cameras=(dataclasses.replace(front, width=24, height=20), *others)
    )
    random = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "bag", contract=contract, instruction="x") as writer:
        for k in range(6):
            for camera in contract.policy_cameras:
                pixels = random.integers(0, 256, (camera.height, camera.width, 3), np.uint8)
                writer.image(camera.name, stamp_ns=10**9 + k * 10**8, image=pixels)
            writer.joint_state(
                contract.state_names, stamp_ns=10**9 + k * 10**8, positions=np.zeros(7)
            )
        writer.close("success")
    pictures = Pictures(format=format)
    convert(tmp_path / "bag", tmp_path / "out", contract, pictures=pictures, action="next_state")
    cache = open_cache(tmp_path / "out")
    dataset = StepDataset(cache, cameras=cache.cameras, chunk_size=2, validation=0.0)
    frames = np.array([4, 0, 2, 0])
    batch = dataset.batch(frames)
    assert {name: tuple(t.shape) for name, t in batch.images.items()} == {
        "front": (4, 20, 24, 3),
        "wrist": (4, 12, 16, 3),
    }
    for name, pixels in batch.images.items():
        assert pixels.is_contiguous()
        assert np.array_equal(pixels.numpy(), cache.images[name][frames])


def test_a_missing_picture_is_masked_and_never_made_up(write_episode, tmp_path, contract):
    cameras = tuple(dataclasses.replace(c, required=c.name != "wrist") for c in contract.cameras)
    optional = dataclasses.replace(contract, cameras=cameras)
    folder = write_episode(leave_out=lambda s, k: s == "wrist" and k >= 4)
    convert(folder, tmp_path / "cache", optional)
    cache = open_cache(tmp_path / "cache")
    assert list(cache.present[:, 1]) == [True] * 4 + [False] * 6
    assert (tmp_path / "cache" / cache.manifest.episode_files[0].file).stat().st_size < (
        14 * 12 * 16 * 3 + 6000
    )


def test_the_split_is_by_content_and_stays_when_episodes_are_added(
    write_episode, tmp_path, contract
):
    def held_out(share):
        cache = open_cache(tmp_path / "cache")
        return {e.sha256: e.split_key < share for e in cache.manifest.episode_files}, cache

    for k in range(6):
        write_episode(f"bags/e{k}", frames=5 + k)
    convert(tmp_path / "bags", tmp_path / "cache", contract, validation=0.5)
    before, _ = held_out(0.5)
    for k in range(6, 12):
        write_episode(f"bags/e{k}", frames=5 + k)
    convert(tmp_path / "bags", tmp_path / "cache", contract, validation=0.5)
    after, cache = held_out(0.5)
    assert {key: after[key] for key in before} == before
    assert 0 < sum(after.values()) < 12
    dataset = StepDataset(cache, cameras=cache.cameras, chunk_size=2, validation=0.5)
    trained = dataset.training_frames
    assert len(trained) + len(dataset.validation_frames) == len(cache)
    # Statistics are exact, and of the training split alone.
    found = cache.manifest.statistics["action"]
    expected = cache.label[trained].astype(np.float64)
    assert found["count"] == len(trained)
    assert found["mean"] == pytest.approx(expected.mean(0))
    assert found["std"] == pytest.approx(expected.std(0))
    assert found["q01"] == pytest.approx(np.quantile(expected, 0.01, axis=0))
    assert found["q99"] == pytest.approx(np.quantile(expected, 0.99, axis=0))


def test_a_recording_of_several_tasks_becomes_several_episodes(write_episode, tmp_path, contract):
    folder = write_episode(frames=60)
    ranges = tmp_path / "list.csv"
    ranges.write_text(
        "bag,start_s,end_s,instruction,outcome\n"
        "episode,0.0,2.0,reach the cube,success\nepisode,3.0,5.0,,success\n"
    )
    manifest = convert(folder, tmp_path / "cache", contract, split=parse_split(f"ranges:{ranges}"))
    assert [e.frames for e in manifest.episode_files] == [20, 20]
    assert manifest.instructions == ("reach the cube", "pick up the red cube")
    cache = open_cache(tmp_path / "cache")
    assert list(np.unique(cache.episode_start)) == [0, 20]
    assert list(cache.instruction_id) == [0] * 20 + [1] * 20


def test_what_an_episode_cannot_give_does_not_end_the_others_of_its_recording(
    write_episode, tmp_path, contract
):
    folder = write_episode(frames=60, leave_out=lambda s, k: s == "front" and 30 <= k < 50)
    ranges = tmp_path / "list.yaml"
    ranges.write_text(
        "[{bag: episode, start_s: 0, end_s: 2}, {bag: episode, start_s: 3.2, end_s: 4.8}]"
    )
    manifest = convert(folder, tmp_path / "cache", contract, split=parse_split(f"ranges:{ranges}"))
    good, bad = manifest.entries[0].episodes
    assert (good.frames, bad.frames) == (20, 0)
    assert "no step is complete" in bad.skipped
    assert manifest.entries[0].is_lossy


def test_memory_does_not_grow_with_the_pictures_of_a_recording(tmp_path, contract):
    cameras = tuple(dataclasses.replace(c, width=64, height=48) for c in contract.cameras)
    larger = dataclasses.replace(contract, cameras=cameras)
    picture = np.zeros((48, 64, 3), np.uint8)

    def peak(frames: int) -> int:
        with EpisodeWriter(tmp_path / f"bag{frames}", contract=larger, instruction="x") as writer:
            for k in range(frames):
                stamp_ns = 10**9 + k * 10**8
                for camera in larger.policy_cameras:
                    writer.image(camera.name, stamp_ns=stamp_ns, image=picture)
                writer.joint_state(larger.state_names, stamp_ns=stamp_ns, positions=np.zeros(7))
        tracemalloc.start()
        try:
            out = tmp_path / f"cache{frames}"
            convert(writer.folder, out, larger, action="next_state", outcomes=None)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    # 200 more steps hold 3.7 MB of pictures.
    assert peak(320) - peak(120) < 1_000_000


def test_other_folders_are_left_alone(bags, tmp_path, contract):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("important")
    with pytest.raises(DatasetError, match="holds other files"):
        build_cache([bags], other, contract=contract)
    assert (other / "thesis.tex").read_text() == "important"


def test_convert_from_the_command_line(bags, tmp_path, capsys):
    out = str(tmp_path / "cache")
    assert main(["data", "convert", str(bags), "--out", out, "--json", "--workers", "1"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["episodes"] == 4
    assert summary["dropped_steps"] == {"front stale": 3}
    (bags / "e1" / "e1_0.mcap").write_bytes(b"hello")
    assert main(["data", "convert", str(bags), "--out", out, "--workers", "1"]) == 1
    assert "neither an mcap" in capsys.readouterr().out


def test_the_contract_of_the_cache_comes_back(bags, tmp_path, contract):
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    assert open_cache(tmp_path / "cache").manifest.contract == contract
    renamed = dataclasses.replace(contract, name="other")
    build_cache([bags], tmp_path / "cache", contract=renamed, workers=1)
    assert open_cache(tmp_path / "cache").manifest.contract.name == "other"


def test_files_of_different_recordings_in_one_folder_are_not_joined(bags, tmp_path, contract):
    loose = tmp_path / "loose"
    loose.mkdir()
    for name in ("e0", "e1"):
        shutil.copy(next((bags / name).glob("*.mcap")), loose / f"{name}.mcap")
    shutil.copytree(bags / "e2", loose / "deeper" / "e2")
    assert [found.name for found in find_bags([loose])] == ["e2", "e0.mcap", "e1.mcap"]
    manifest = build_cache([loose], tmp_path / "cache", contract=contract, workers=1)
    assert manifest.episodes == 3


def test_parts_of_a_split_recording_stay_one(bags, tmp_path):
    split = tmp_path / "split"
    split.mkdir()
    for part in range(3):
        shutil.copy(next((bags / "e0").glob("*.mcap")), split / f"run_{part}.mcap")
    assert find_bags([split]) == [split]


def test_what_is_lost_of_a_recording_is_said(bags, tmp_path, contract, capsys):
    (file,) = (bags / "e0").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-20])
    out = tmp_path / "cache"
    assert main(["data", "convert", str(bags), "--out", str(out), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert f"{bags / 'e0'}: a part is lost" in printed
    assert open_cache(out).manifest.entries[0].lost


@pytest.mark.parametrize("options", [{"rate_hz": -3.0}, {"rate_hz": 1e9}, {"instruction": " "}])
def test_what_cannot_be_is_refused_before_anything_is_read(bags, tmp_path, contract, options):
    with pytest.raises(DatasetError):
        build_cache([bags], tmp_path / "cache", contract=contract, **options)
    assert not (tmp_path / "cache").exists()
