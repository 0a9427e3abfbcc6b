"""The cache: the steps of many bags, resumable, the same whoever wrote it and however often."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastvla_core.cli import main
from fastvla_core.errors import DatasetError
from training.bags.episodes import episode_steps
from training.bags.reader import open_bag
from training.cache import build_cache, find_bags, open_cache
from training.cache_store import JOURNAL_FILE, CacheStore


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


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


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
    append, calls = CacheStore.append, []

    def killed(self, entry, steps):
        if len(calls) == survives:
            # Killed between the frames and their line in the journal.
            self._write_line = lambda line: (_ for _ in ()).throw(KeyboardInterrupt)
        calls.append(entry)
        append(self, entry, steps)

    monkeypatch.setattr(CacheStore, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    with pytest.raises(DatasetError, match="not a finished cache"):
        open_cache(tmp_path / "cache")
    with (tmp_path / "cache" / JOURNAL_FILE).open("a") as journal:
        journal.write('{"source": "half a li')
    read = []

    def counted(self, entry, steps):
        read.append(entry)
        append(self, entry, steps)

    monkeypatch.setattr(CacheStore, "append", counted)
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    assert len(read) == 5 - survives
    assert digest(tmp_path / "cache") == digest(tmp_path / "whole")


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
        return episode_steps(bag, **options)

    monkeypatch.setattr("training.cache_build.episode_steps", surprise)
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


def test_a_cut_cache_is_refused_and_made_anew(bags, tmp_path, contract):
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    whole = digest(tmp_path / "cache")
    os.truncate(tmp_path / "cache" / "image_front.u8", 100)
    with pytest.raises(DatasetError, match="has 100 bytes instead of"):
        open_cache(tmp_path / "cache")
    build_cache([bags], tmp_path / "cache", contract=contract, workers=1)
    assert digest(tmp_path / "cache") == whole


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
