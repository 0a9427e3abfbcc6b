"""Physics, sensors and randomisation of the simulated robot."""

from __future__ import annotations

import numpy as np
import pytest

from fastvla_core.errors import SimError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.sim import TabletopSim, rendering
from fastvla_core.sim.rendering import POLICY_CAMERAS
from fastvla_core.sim.sim import ACTION_NAMES

CAMERAS = {"front": (96, 96, 3), "wrist": (96, 96, 3), "scene": (360, 480, 3)}


def test_the_same_seed_gives_the_same_scene_and_motion(sim: TabletopSim) -> None:
    def play() -> tuple[np.ndarray, ...]:
        sim.reset(5)
        for tick in range(5):
            sim.step(sim.state() + np.float32(0.02) * (-1) ** tick)
        return sim.state(), sim.render("front"), sim.render("wrist"), sim.cube("red").position

    first = play()
    sim.reset(6)
    for one, other in zip(first, play(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_simulator_gives_the_same_pixels(sim: TabletopSim) -> None:
    other = TabletopSim()
    other.reset(8)
    sim.reset(8)
    np.testing.assert_array_equal(sim.render("wrist"), other.render("wrist"))
    other.close()


def test_what_is_left_out_beside_the_picture_changes_no_pixel(
    sim: TabletopSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Far from the hand the wrist camera sees half of the scene at most.
    for seed in range(6):
        sim.reset(seed)
        sim.step(sim.state() + np.float32(0.1) * (seed - 2))
        for camera in POLICY_CAMERAS:
            found = sim.render(camera)
            with monkeypatch.context() as patch:
                patch.setattr(rendering, "_NOT_DRAWN", 0)
                np.testing.assert_array_equal(found, sim.render(camera))


@pytest.mark.parametrize(("camera", "shape"), CAMERAS.items())
def test_randomisation_changes_pixels_and_can_be_undone(
    sim: TabletopSim, camera: str, shape: tuple[int, int, int]
) -> None:
    sim.reset(3, randomise=False)
    plain = sim.render(camera)
    sim.reset(3)
    random = sim.render(camera)
    sim.reset(3, randomise=False)
    assert plain.shape == shape
    assert plain.dtype == np.uint8
    assert np.abs(plain.astype(int) - random).mean() > 5
    np.testing.assert_array_equal(sim.render(camera), plain)


def test_the_layout_follows_the_seed(sim: TabletopSim) -> None:
    places = []
    for seed in range(3):
        sim.reset(seed)
        places.append(np.concatenate([thing.position for thing in sim.objects]))
    assert np.abs(places[0] - places[1]).max() > 0.02
    assert np.abs(places[1] - places[2]).max() > 0.02


def test_limits_are_those_of_the_contract(sim: TabletopSim) -> None:
    contract = load_contract("tabletop")
    assert contract.action_names == ACTION_NAMES
    wanted = [(part.lower, part.upper) for part in (*contract.joints, contract.gripper)]
    np.testing.assert_array_equal(sim.limits, wanted)


def test_targets_are_clipped_at_the_limits(sim: TabletopSim) -> None:
    sim.reset(0)
    target = sim.state()
    target[[0, 6]] = 100.0, -1.0
    sim.step(target, duration_s=2.0)
    sim.advance(0.5)
    assert sim.joints[0] == pytest.approx(2.8, abs=5e-3)
    assert sim.finger_gap == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    "target", [np.full(7, np.nan), np.append(np.zeros(6), np.inf), np.zeros(6)]
)
def test_an_impossible_target_is_refused_and_changes_nothing(
    sim: TabletopSim, target: np.ndarray
) -> None:
    sim.reset(0)
    before = sim.state()
    with pytest.raises(SimError, match="finite"):
        sim.step(target)
    np.testing.assert_array_equal(sim.state(), before)
    assert sim.time_ns == 0


def test_the_set_point_moves_linearly(sim: TabletopSim) -> None:
    sim.reset(0)
    start = sim.state()
    target = start + np.array([0.2, 0, 0, 0, 0, 0, 0], np.float32)
    angles = []
    for _ in range(10):
        sim.step(start + (target - start) * (len(angles) + 1) / 10, duration_s=0.1)
        angles.append(sim.joints[0])
    sim.reset(0)
    sim.set_target(target, over_s=1.0)
    for angle in angles:
        sim.advance(0.1)
        assert sim.joints[0] == pytest.approx(angle, abs=1e-4)


def test_short_advances_add_up(sim: TabletopSim) -> None:
    sim.reset(0)
    target = sim.state() + np.float32(0.05)
    sim.step(target)
    in_one = sim.state()
    assert sim.time_ns == 100_000_000
    sim.reset(0)
    sim.set_target(target, over_s=0.1)
    for _ in range(10):
        sim.advance(0.01)
    assert sim.time_ns == 100_000_000
    np.testing.assert_array_equal(sim.state(), in_one)


def test_velocities_are_the_slope_of_the_state(sim: TabletopSim) -> None:
    sim.reset(0)
    sim.set_target(sim.state() + np.float32(0.1), over_s=0.5)
    sim.advance(0.2)
    before = sim.state()
    sim.advance(0.004)
    np.testing.assert_allclose((sim.state() - before) / 0.004, sim.joint_velocities(), atol=2e-3)


def test_depth_is_the_distance_along_the_cameras_axis(sim: TabletopSim) -> None:
    sim.reset(0, randomise=False)
    depth = sim.render_depth("front")
    assert (depth.dtype, depth.shape) == (np.float32, (96, 96))
    colours = sim.render("front")
    assert colours.dtype == np.uint8
    # The camera looks down on the table from 0.47 m, at 0.566 of its axis' length.
    assert 0.3 < depth.min() < depth.max()
    assert np.median(depth) == pytest.approx(0.47 / 0.566, abs=0.25)


def test_an_unknown_camera_is_named(sim: TabletopSim) -> None:
    with pytest.raises(SimError, match="no camera 'top'"):
        sim.render("top")
