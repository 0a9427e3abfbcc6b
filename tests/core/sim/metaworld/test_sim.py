"""Meta-World's Sawyer: what its cameras show, where its hand goes, when a task is done."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest

from fastvla_core.errors import SimError
from fastvla_core.sim.demonstrations import record_demonstration
from fastvla_core.sim.metaworld.environment import MetaWorldEnvironment
from fastvla_core.sim.metaworld.expert import ScriptedExpert
from fastvla_core.sim.metaworld.sim import (
    CAMERAS,
    OPEN_M,
    STATE_NAMES,
    MetaWorldSim,
    load_metaworld,
)
from fastvla_core.sim.metaworld.tasks import INSTRUCTIONS, MetaWorldTask
from fastvla_core.sim.monitor import Outcome
from fastvla_core.sim.rollout import rollout
from fastvla_core.types import ActionChunk, Observation

if importlib.util.find_spec("metaworld") is None:
    pytest.skip("metaworld is not installed", allow_module_level=True)

BUTTON = MetaWorldTask(name="button-press-v3")
TICK_S = MetaWorldEnvironment.tick_s


@pytest.fixture(scope="module")
def environment() -> Iterator[MetaWorldEnvironment]:
    with contextlib.closing(MetaWorldEnvironment()) as made:
        yield made


@pytest.fixture(scope="module")
def sim() -> Iterator[MetaWorldSim]:
    with contextlib.closing(MetaWorldSim(BUTTON)) as made:
        yield made


def chunk_of(observation: Observation, position: np.ndarray) -> ActionChunk:
    return ActionChunk(
        stamp_ns=observation.stamp_ns,
        chunk_id=0,
        names=STATE_NAMES,
        dt_s=TICK_S,
        positions=position[None].astype(np.float64),
    )


def test_the_tasks_are_those_of_the_package() -> None:
    tasks = load_metaworld("metaworld.env_dict").ALL_V3_ENVIRONMENTS
    assert set(INSTRUCTIONS) == set(tasks)


def test_the_scene_follows_the_seed(sim: MetaWorldSim) -> None:
    pictures = []
    for seed in (3, 4, 3):
        sim.reset(seed)
        pictures.append({camera: sim.render(camera).copy() for camera in CAMERAS})
        sim.step(np.array([0.1, 0.6, 0.3, 0.0]), duration_s=TICK_S)
    first, other, again = pictures
    for camera in CAMERAS:
        assert np.array_equal(first[camera], again[camera])
    assert not np.array_equal(first["front"], other["front"])


def test_the_front_camera_is_the_right_way_up(sim: MetaWorldSim) -> None:
    def row_of_the_cyan_finger() -> float:
        pixels = sim.render("front").astype(int)
        return float(np.nonzero(pixels[..., 1:].min(2) - pixels[..., 0] > 60)[0].mean())

    sim.reset(0)
    low = row_of_the_cyan_finger()
    for _ in range(8):
        sim.step(np.array([0.0, 0.4, 0.4, OPEN_M]), duration_s=TICK_S)
    assert row_of_the_cyan_finger() < low - 5


def test_the_hand_goes_where_it_is_told(sim: MetaWorldSim) -> None:
    sim.reset(0)
    target = np.array([0.1, 0.5, 0.25, 0.0])
    assert sim.state()[3] == pytest.approx(OPEN_M, abs=0.01)
    sim.step(target, duration_s=TICK_S)
    # 4 cm in 0.05 s at most, along each axis.
    assert sim.set_point == pytest.approx([0.04, 0.44, 0.24], abs=1e-6)
    for _ in range(12):
        sim.step(target, duration_s=TICK_S)
    assert sim.state()[:3] == pytest.approx(target[:3], abs=0.01)
    assert sim.state()[3] < 0.03
    assert sim.time_ns == 13 * 50_000_000


@pytest.mark.parametrize("target", [np.zeros(3), np.array([0, 0, np.nan, 0])])
def test_impossible_targets_are_refused(sim: MetaWorldSim, target: np.ndarray) -> None:
    with pytest.raises(SimError, match="not 4 finite numbers"):
        sim.step(target, duration_s=TICK_S)
    with pytest.raises(SimError, match="no camera 'wrist'"):
        sim.render("wrist")


def test_asking_the_expert_moves_nothing(sim: MetaWorldSim) -> None:
    expert = ScriptedExpert(sim)
    sim.reset(5)
    sim.step(expert.target(duration_s=TICK_S), duration_s=TICK_S)
    before = sim.state(), sim.set_point, sim.render("front").copy()
    target = expert.target(duration_s=TICK_S)
    assert np.array_equal(target, expert.target(duration_s=TICK_S))
    for was, is_now in zip(before, (sim.state(), sim.set_point, sim.render("front"))):
        assert np.array_equal(was, is_now)
    sim.step(target, duration_s=TICK_S)
    assert sim.set_point == pytest.approx(target[:3], abs=1e-3)


def test_only_the_task_done_is_a_success(environment: MetaWorldEnvironment) -> None:
    def expert(observation: Observation) -> ActionChunk:
        return chunk_of(observation, environment.expert_target())

    def stay(observation: Observation) -> ActionChunk:
        return chunk_of(observation, observation.state)

    done = rollout(environment, BUTTON, 7, expert)
    assert done.outcome is Outcome.SUCCESS
    assert done.ticks < 40
    failed = rollout(environment, BUTTON, 7, stay, horizon=done.ticks)
    assert (failed.outcome, failed.ticks) == (Outcome.UNKNOWN, done.ticks)


def test_the_policy_sees_cameras_hand_and_words_only(environment: MetaWorldEnvironment) -> None:
    environment.begin(BUTTON, 1)
    seen = environment.observe()
    assert seen.task == "press the button"
    assert {name: image.shape for name, image in seen.images.items()} == dict.fromkeys(
        CAMERAS, (96, 96, 3)
    )
    assert seen.state.shape == (4,)


def test_an_episode_has_meta_world_s_time(environment: MetaWorldEnvironment) -> None:
    environment.begin(BUTTON, 1)
    rest = environment.observe().state
    for _ in range(environment.horizon):
        environment.step(rest, duration_s=environment.tick_s)
    assert environment.time_ns == 500 * 12_500_000
    assert environment.outcome is Outcome.FAILED
    environment.watch()
    assert environment.outcome is Outcome.UNKNOWN
    environment.step(rest, duration_s=environment.tick_s)
    assert environment.time_ns == 504 * 12_500_000


def test_the_expert_recovers_from_noise(environment: MetaWorldEnvironment) -> None:
    clean = record_demonstration(environment, BUTTON, 2, noise=False)
    noisy = record_demonstration(environment, BUTTON, 2)
    again = record_demonstration(environment, BUTTON, 2)
    assert clean.success
    assert noisy.success
    assert np.array_equal(clean.label, clean.executed)
    assert not np.array_equal(noisy.label, noisy.executed)
    assert np.array_equal(noisy.state, again.state)
    assert np.array_equal(noisy.images["hand"], again.images["hand"])
