"""`inspect` reports on every file and raises on none."""

from __future__ import annotations

import json

import pytest
import yaml

from fastvla_core.cli import main
from training.bags.inspection import inspect_bag


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("07_rosbag2js_images", 0),
        ("09_rosbag2_wbag_db3", 0),
        ("09_rosbag2_wbag_mcap", 0),
        ("10_rosbag2_split_no_metadata_db3", 0),
        ("10_rosbag2_split_no_metadata_mcap", 0),
        ("13_rosbag2_empty_with_wal", 0),
        ("14_alltypes_db3", 0),
        ("14_alltypes_mcap", 0),
        ("15_nav2_filezstd", 0),
        ("16_truncated", 1),
        ("16_truncated/test_sample.mcap", 0),
        ("16_truncated/test_sample_truncated.mcap", 1),
        ("18_nonros", 2),
        ("20_crazyflie_pose_cmd", 0),
        ("README.md", 2),
        ("nowhere", 2),
    ],
)
def test_verdicts_on_real_files(real_bags, capsys, name, verdict):
    assert main(["data", "inspect", str(real_bags / name), "--json"]) == verdict
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == verdict
    assert all(problem["mend"] for problem in report["problems"])
    assert any(p["loses_data"] for p in report["problems"]) == (verdict > 0)


def test_an_episode_is_described(write_episode, capsys):
    assert main(["data", "inspect", str(write_episode())]) == 0
    text = capsys.readouterr().out
    assert "pick up the red cube" in text
    assert "success" in text
    assert "10.00 Hz  /front/image_raw" in text


def test_a_pause_of_a_stream_is_named(write_episode):
    hole = write_episode(frames=60, leave_out=lambda s, k: s == "wrist" and 20 <= k < 40)
    (problem,) = inspect_bag(hole).problems
    assert "'/wrist/image_raw' pauses for 2.10 s" in problem.message


def test_fewer_messages_than_the_metadata_counts_is_a_loss(write_episode):
    folder = write_episode()
    metadata = folder / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 40", "message_count: 41"))
    report = inspect_bag(folder)
    assert report.verdict == 1
    assert "counts 41 messages, 40 were read" in report.problems[0].message


def test_a_recording_of_which_nothing_is_left_is_not_readable(write_episode):
    folder = write_episode()
    (file,) = folder.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:100])
    assert inspect_bag(folder).verdict == 2


def test_a_packed_recording_that_cannot_be_unpacked_is_named_by_its_own_path(tmp_path):
    file = tmp_path / "bag.mcap.zstd"
    file.write_bytes(b"\x28\xb5\x2f\xfd" + b"junk" * 50)
    (problem,) = inspect_bag(file).problems
    assert problem.message.startswith(f"{file}: is damaged")


def test_a_strange_entry_of_the_metadata_does_not_hide_the_recording(write_episode):
    folder = write_episode()
    metadata = folder / "metadata.yaml"
    data = yaml.safe_load(metadata.read_text())
    data["rosbag2_bagfile_information"]["custom_data"] = ["a"]
    metadata.write_text(yaml.safe_dump(data))
    report = inspect_bag(folder)
    assert report.verdict == 0
    assert report.instruction == "pick up the red cube"
