"""The simulated robot against a clock that the test moves."""

from collections import defaultdict

import numpy as np
import pytest

from fastvla_core.errors import SimError
from fastvla_core.robot.contract_file import load_contract, parse_contract
from fastvla_core.sim import TabletopSim, expert_action, parse_instruction
from fastvla_ros.nodes.sim_robot_loop import SimLoop, SimRates, check_contract

EPOCH_NS = 1_000_000_000_000


class Listener:
    def __init__(self):
        self.stamps = defaultdict(list)
        self.verdicts = []
        self.positions = None

    def on_clock(self, stamp_ns):
        self.stamps["clock"].append(stamp_ns)

    def on_joints(self, stamp_ns, positions, velocities):
        assert velocities.shape == positions.shape
        self.stamps["joints"].append(stamp_ns)
        self.positions = positions

    def on_image(self, camera, stamp_ns, image):
        assert image.dtype == np.uint8
        self.stamps[camera].append(stamp_ns)

    def on_verdict(self, stamp_ns, verdict):
        self.verdicts.append((verdict.task, verdict.outcome))

    def on_failure(self, error):
        raise error


class Clock:
    now_ns = 5_000_000_000


class Rig:
    def __init__(self, *, follow_wall=True, time_scale=1.0, cameras=None):
        self.listener, self.clock = Listener(), Clock()
        self.sims = []
        self.loop = SimLoop(
            load_contract("tabletop"),
            listener=self.listener,
            rates=SimRates(cameras_hz=cameras or {}, time_scale=time_scale),
            make_sim=self._make_sim,
            seed=3,
            epoch_ns=lambda: EPOCH_NS,
            follow_wall=follow_wall,
            now_ns=lambda: self.clock.now_ns,
        )
        self.loop.open()
        self.sim = self.sims[0]

    def _make_sim(self):
        self.sims.append(TabletopSim())
        return self.sims[-1]

    def run(self, seconds, step_s=0.01):
        for _ in range(round(seconds / step_s)):
            self.clock.now_ns += round(step_s * 1e9)
            self.loop.catch_up()


def test_everything_is_measured_at_its_rate():
    rig = Rig(cameras={"front": 30.0, "wrist": 30.0, "scene": 10.0})
    rig.run(2.0)
    counts = {name: len(stamps) for name, stamps in rig.listener.stamps.items()}
    assert counts["joints"] == 200
    assert counts["front"] == pytest.approx(60, abs=1)
    assert counts["scene"] == pytest.approx(20, abs=1)
    # Both policy cameras are drawn at the same instant, right after a joint state of that instant.
    assert rig.listener.stamps["front"] == rig.listener.stamps["wrist"]
    assert set(rig.listener.stamps["front"]) <= set(rig.listener.stamps["joints"])
    rig.sim.close()


def test_stamps_follow_the_wall_clock():
    rig = Rig()
    rig.run(1.0)
    assert rig.listener.stamps["joints"][-1] - EPOCH_NS == pytest.approx(1e9, abs=12e6)


@pytest.mark.parametrize("follow_wall", [True, False])
def test_a_machine_that_is_too_slow_loses_time_and_does_not_hurry(follow_wall):
    rig = Rig(follow_wall=follow_wall)
    rig.run(0.5)
    before = len(rig.listener.stamps["joints"])
    rig.clock.now_ns += 3_000_000_000
    rig.loop.catch_up()
    assert len(rig.listener.stamps["joints"]) - before <= 2
    assert rig.loop.lost_ns == pytest.approx(3e9, rel=0.02)
    behind_ns = 3.5e9 if follow_wall else 0.5e9
    assert rig.listener.stamps["joints"][-1] - EPOCH_NS == pytest.approx(behind_ns, abs=40e6)


def test_ticks_that_take_longer_than_their_time_do_not_pile_up():
    rig = Rig()
    tick = rig.loop.tick

    def slow_tick():
        rig.clock.now_ns += 15_000_000
        tick()
        if len(rig.listener.stamps["joints"]) == 400:
            rig.loop.close()

    rig.loop.tick = slow_tick
    rig.clock.now_ns += 10_000_000
    rig.loop.catch_up()
    wall_ns = rig.clock.now_ns - 5_000_000_000
    assert wall_ns == pytest.approx(400 * 15e6, rel=0.01)
    assert wall_ns - (rig.listener.stamps["joints"][-1] - EPOCH_NS) < 150e6


def test_time_scale_makes_simulated_time_go_faster():
    rig = Rig(follow_wall=False, time_scale=2.0)
    rig.run(1.0)
    assert rig.listener.stamps["clock"][-1] - EPOCH_NS == pytest.approx(2e9, abs=25e6)


def test_time_goes_on_over_a_reset_and_the_scene_is_the_seeds():
    rig = Rig(cameras={"front": 30.0})
    rig.run(0.3)
    done = rig.loop.reset(9)
    rig.run(0.3)
    assert done.done()
    for stamps in rig.listener.stamps.values():
        assert (np.diff(stamps) > 0).all()
        assert np.diff(stamps).max() < 60e6
    fresh = TabletopSim()
    fresh.reset(9)
    ours, theirs = rig.sim.cube("red").position, fresh.cube("red").position
    np.testing.assert_allclose(ours[:2], theirs[:2], atol=1e-3)
    np.testing.assert_allclose(rig.listener.positions, fresh.state(), atol=5e-3)
    rig.sim.close()


def test_the_robot_follows_its_commands():
    rig = Rig()
    rig.run(0.1)
    wanted = rig.sim.state()
    wanted[0] += 0.3
    rig.loop.drive.move(["joint1"], [float(wanted[0])], now_ns=rig.loop.stamp_ns(), duration_s=0.2)
    rig.run(1.0)
    np.testing.assert_allclose(rig.listener.positions, wanted, atol=0.01)


def test_the_judge_sees_a_task_done_and_says_so_once():
    rig = Rig()
    task = parse_instruction("pick up the red cube")
    rig.loop.judge("pick up the red cube")
    for _ in range(60):
        target = expert_action(rig.sim, task)
        rig.loop.drive.move(
            [f"joint{i}" for i in range(1, 7)], target[:6], now_ns=rig.loop.stamp_ns(),
            duration_s=0.1,
        )  # fmt: skip
        rig.loop.drive.move_gripper("gripper", target[6], now_ns=rig.loop.stamp_ns())
        rig.run(0.1)
    rig.loop.judge("")
    rig.run(0.1)
    assert rig.listener.verdicts == [
        ("pick up the red cube", None),
        ("pick up the red cube", True),
    ]


def test_a_task_that_ends_undone_has_failed():
    rig = Rig()
    rig.loop.judge("stack the red cube on the blue cube")
    rig.run(0.2)
    rig.loop.judge("")
    rig.run(0.1)
    assert [outcome for _, outcome in rig.listener.verdicts] == [None, False]


def test_an_instruction_without_a_success_test_stays_undecided():
    rig = Rig()
    rig.loop.judge("sing a song")
    rig.run(0.2)
    rig.loop.judge("")
    rig.run(0.1)
    assert rig.listener.verdicts == [("sing a song", None)]


def test_a_contract_of_another_robot_is_refused():
    data = load_contract("tabletop").to_dict()
    data["joints"]["elbow"] = data["joints"].pop("joint3")
    with pytest.raises(SimError, match="elbow"):
        check_contract(parse_contract(data), image_size=96)
    data = load_contract("tabletop").to_dict()
    data["cameras"]["wrist"]["width"] = 128
    with pytest.raises(SimError, match="'wrist' is 128x96"):
        check_contract(parse_contract(data), image_size=96)
    data = load_contract("tabletop").to_dict()
    data["cameras"]["wrist"]["encoding"] = "bgr8"
    with pytest.raises(SimError, match="'wrist' sends bgr8 in the contract, the simulator rgb8"):
        check_contract(parse_contract(data), image_size=96)
