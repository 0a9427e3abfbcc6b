"""The video, the plot and the table of a demo."""

import av
import cv2
import numpy as np
import pytest

from fastvla_core.errors import FastVLAError
from fastvla_ros.demo.frames import HEIGHT, SCENE_WIDTH, WIDTH, Caption, compose
from fastvla_ros.demo.history import GoalSpan, History
from fastvla_ros.demo.plot import plot_history
from fastvla_ros.demo.video import VideoWriter


def images():
    return {
        "scene": np.full((360, 480, 3), (200, 10, 10), np.uint8),
        "front": np.full((96, 96, 3), (10, 200, 10), np.uint8),
        "wrist": np.full((96, 96, 3), (10, 10, 200), np.uint8),
    }


def test_every_camera_has_its_place_in_the_frame():
    frame = compose(images(), Caption())
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert frame[200, 100].tolist() == [200, 10, 10]
    assert frame[100, SCENE_WIDTH + 90].tolist() == [10, 200, 10]
    assert frame[330, SCENE_WIDTH + 90].tolist() == [10, 10, 200]


def test_goal_state_and_outcome_are_written_into_the_frame():
    blank = compose({}, Caption())
    for caption in (
        Caption(title="pick up the red cube"),
        Caption(state="executing"),
        Caption(outcome="success"),
        Caption(outcome="failure"),
    ):
        assert not np.array_equal(compose({}, caption), blank)
    # Text must not run under the badge: the longest default goal leaves its corner alone.
    long = compose({}, Caption(title="3/3  stack the blue cube on the red cube"))
    np.testing.assert_array_equal(long[:40, WIDTH - 130 :], blank[:40, WIDTH - 130 :])


def test_the_video_plays_in_real_time_in_a_format_that_every_player_has(tmp_path):
    path = tmp_path / "demo.mp4"
    video = VideoWriter(path, width=WIDTH, height=HEIGHT, rate_hz=10)
    for k in (0, 1, 2, 10, 11):
        video.add(k / 10, lambda k=k: np.full((HEIGHT, WIDTH, 3), 20 * k, np.uint8))
    video.add(1.11, lambda: np.zeros((HEIGHT, WIDTH, 3), np.uint8))  # the same instant again
    video.close()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(video=0))
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
    times_s = [frame.time - frames[0].time for frame in frames]
    np.testing.assert_allclose(times_s, [0.0, 0.1, 0.2, 1.0, 1.1], atol=1e-6)
    assert frames[3].to_ndarray(format="rgb24").mean() == pytest.approx(200, abs=4)


def test_a_frame_that_cannot_be_made_is_reported_at_the_end(tmp_path):
    video = VideoWriter(tmp_path / "demo.mp4", width=WIDTH, height=HEIGHT, rate_hz=10)
    video.add(0.0, lambda: np.zeros((3, 3, 3), np.uint8)[:, :, :1])
    with pytest.raises(FastVLAError, match="could not be written"):
        video.close()


def test_the_plot_shows_joints_latency_and_goals(tmp_path):
    history = History(names=("joint1", "joint2", "gripper"))
    for k in range(50):
        row = np.array([np.sin(k / 10), 0.0, 0.02])
        history.measured.add(k / 10, row)
        history.commanded.add(k / 10, row + 0.01)
        history.inference.add(k / 10, np.array([0.02 + 0.001 * (k % 5)]))
    history.goals.append(GoalSpan(begin_s=1, end_s=3, task="pick up", outcome="success"))
    path = tmp_path / "demo.png"
    plot_history(history, path)
    picture = cv2.imread(str(path))
    assert picture.shape[0] > 400
    assert picture.shape[1] > 1000
    blue = (picture == (168, 95, 31)).all(axis=2)
    assert blue[:, : picture.shape[1] // 2].sum() > 500


def test_a_run_without_any_inference_can_be_plotted(tmp_path):
    plot_history(History(names=("joint1", "gripper")), tmp_path / "demo.png")
    assert (tmp_path / "demo.png").stat().st_size > 1000
