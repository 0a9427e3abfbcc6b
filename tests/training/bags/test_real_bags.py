"""Every recording that nobody here wrote becomes steps, or is refused with the right reason."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from fastvla_core.cli import main
from fastvla_core.errors import DatasetError
from fastvla_core.robot.contract import CameraSpec, JointSpec, RobotContract
from fastvla_core.robot.decode import decode_camera
from training.bags.inspection import inspect_bag
from training.bags.reader import open_bag
from training.cache import Conversion
from training.cache_build import convert_bags, find_bags, in_processes

NO_CAMERA = "holds nothing of camera 'front' on '/front/image_raw'"
REFUSED = {
    "07_rosbag2js_images": NO_CAMERA,
    "09_rosbag2_wbag_db3": NO_CAMERA,
    "09_rosbag2_wbag_mcap": NO_CAMERA,
    "10_rosbag2_split_no_metadata_db3": NO_CAMERA,
    "10_rosbag2_split_no_metadata_mcap": NO_CAMERA,
    "13_rosbag2_empty_with_wal": NO_CAMERA,
    "14_alltypes_db3": NO_CAMERA,
    "14_alltypes_mcap": NO_CAMERA,
    "15_nav2_filezstd": NO_CAMERA,
    "test_sample.mcap": NO_CAMERA,
    "test_sample.mcap.zstd": NO_CAMERA,
    "test_sample_no_rosout.mcap": NO_CAMERA,
    "test_sample_truncated.mcap": NO_CAMERA,
    "18_nonros": "holds no ROS 2 messages",
    "20_crazyflie_pose_cmd": NO_CAMERA,
}


def test_each_is_refused_for_another_robots_contract_with_its_own_reason(
    real_bags, tmp_path, contract, capsys
):
    found = {path.name: path for path in find_bags([real_bags])}
    assert set(found) == set(REFUSED)
    options = ["--instruction", "x", "--outcome", "any", "--workers", "1", "--json"]
    for name, reason in REFUSED.items():
        out = tmp_path / name
        command = ["data", "convert", str(found[name]), "--out", str(out), *options]
        assert main([*command, "--contract", "tabletop"]) == 1
        said = capsys.readouterr().err
        assert reason in said, name
        assert "to mend" in said
        # What was found out is kept: it is not read again.
        assert len(list((out / "entries").iterdir())) == 1


def _alltypes_contract(contract: RobotContract) -> RobotContract:
    """The robot that the two recordings of all message types would be of."""
    camera = CameraSpec(
        name="front", topic="test/sensor_msgs/image", encoding="rgb8", width=640, height=480,
        max_age_s=5.0,
    )  # fmt: skip
    joints = tuple(
        JointSpec(name=f"joint{k}", lower=-9, upper=9, max_velocity=1, max_acceleration=1)
        for k in range(1, 4)
    )
    states = dataclasses.replace(
        contract.joint_states, topic="test/sensor_msgs/joint_state", max_age_s=5.0
    )
    sync = dataclasses.replace(contract.sync, stamp="receive")
    return dataclasses.replace(
        contract, cameras=(camera,), joints=joints, gripper=None, joint_states=states, sync=sync
    )


@pytest.mark.parametrize("name", ["14_alltypes_db3", "14_alltypes_mcap"])
def test_pictures_that_lie_about_their_size_are_refused_and_not_filled_up(
    real_bags, tmp_path, contract, name
):
    """Their 640x480 pictures hold 30 bytes."""
    how = Conversion(
        contract=_alltypes_contract(contract),
        action="next_state",
        outcomes=None,
        instruction="look",
    )
    with pytest.raises(DatasetError, match="data has 30 bytes, but step"):
        convert_bags([real_bags / name], tmp_path / "cache", conversion=how, run=in_processes(1))


def test_real_pictures_are_unpacked(real_bags):
    with open_bag(real_bags / "07_rosbag2js_images") as bag:
        found = {raw.topic: bag.types.parse(raw.data, raw.type) for raw in bag.messages()}
    camera = CameraSpec(name="front", topic="image", encoding="bgr8", width=640, height=480)
    for topic in ("/image", "/image/compressed"):
        pixels = decode_camera(camera, found[topic])
        assert (pixels.shape, pixels.dtype) == ((480, 640, 3), np.uint8)
        assert np.ptp(pixels) > 50


def test_the_report_of_a_real_flight_has_its_rates_and_clock(real_bags, capsys):
    assert main(["data", "inspect", str(real_bags / "20_crazyflie_pose_cmd"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (pose,) = [t for t in report["topics"] if t["name"].endswith("/pose")]
    assert pose["rate_hz"] == pytest.approx(100, rel=0.01)
    assert 0 <= pose["clock"]["offset_s"] < 0.1
    assert abs(pose["clock"]["drift_ppm"]) < 200


def test_what_a_truncated_recording_lost_is_said_and_the_rest_is_read(real_bags):
    report = inspect_bag(real_bags / "16_truncated" / "test_sample_truncated.mcap")
    assert (report.verdict, report.messages) == (1, 14)
    assert any(p.loses_data and p.mend for p in report.problems)
