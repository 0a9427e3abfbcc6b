"""`inspect` reports on every file and raises on none."""

from __future__ import annotations

import json

import pytest

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
