"""Every image that does not come, comes twice or comes wrong is counted."""

import math
import subprocess
import sys

import pytest

from fastvla_core.errors import RosError
from fastvla_ros.bench.processes import running
from fastvla_ros.bench.runtimes import find_runtimes
from fastvla_ros.bench.services import Calls, measure_calls
from fastvla_ros.bench.startup import Starts, measure_starts
from fastvla_ros.bench.transport import Images, best_effort, evaluate, measure_images, named
from fastvla_ros.demo.domain import reserve_domain

SMALL = Images(cameras=2, width=16, height=8, rate_hz=50.0, frames=10, warm_up=2)


@pytest.fixture
def embedded(monkeypatch):
    with reserve_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        monkeypatch.delenv("FASTVLA_ROS2_SETUP", raising=False)
        yield find_runtimes()[0]


def test_what_was_not_seen_is_lost():
    seen = {"ages_ns": [[1e6, 2e6], [3e6]], "damaged": 1, "duplicates": 2, "cpu_share": 0.02}
    figures = evaluate(Images(cameras=2, frames=3), seen=seen, sent={"cpu_share": 0.05})
    assert figures["lost"] == 3
    assert (figures["damaged"], figures["duplicates"]) == (1, 2)
    assert (figures["p50_ms"], figures["max_ms"]) == (2.0, 3.0)
    assert figures["publisher_cpu_percent"] == pytest.approx(5.0)
    assert figures["subscriber_cpu_percent"] == pytest.approx(2.0)


def test_a_run_that_loses_everything_has_no_latency():
    seen = {"ages_ns": [[]], "damaged": 0, "duplicates": 0, "cpu_share": 0.0}
    figures = evaluate(Images(cameras=1, frames=5), seen=seen, sent={"cpu_share": 0.0})
    assert figures["lost"] == 5
    assert math.isnan(figures["p50_ms"])


def test_images_go_from_process_to_process(embedded):
    figures = measure_images(embedded, embedded, SMALL)
    assert (figures["lost"], figures["damaged"], figures["duplicates"]) == (0, 0, 0)
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    # A share of this run: of the time since the machine started it would be next to nothing.
    assert 0.1 < figures["publisher_cpu_percent"] < 200
    assert 0.1 < figures["subscriber_cpu_percent"] < 200


def test_a_watcher_that_waits_for_more_ends_and_counts_them_as_lost(embedded):
    common = {"cameras": 1, "warm_up": 0, "reliability": "reliable", "depth": 20, "timeout_s": 60.0}
    shape = {"width": 16, "height": 8, "rate_hz": 50.0}
    with (
        running(embedded, "watcher", frames=8, size=3 * 16 * 8, **common) as watcher,
        running(embedded, "cameras", frames=5, **shape, **common) as cameras,
    ):
        seen, sent = watcher.report(timeout_s=60.0), cameras.report(timeout_s=60.0)
    figures = evaluate(Images(cameras=1, frames=8), seen=seen, sent=sent)
    assert figures["lost"] == 3


def test_images_of_another_size_are_damaged(embedded):
    common = {"cameras": 1, "frames": 5, "warm_up": 0, "reliability": "reliable", "depth": 20}
    with (
        running(embedded, "watcher", size=7, timeout_s=60.0, **common) as watcher,
        running(
            embedded, "cameras", width=16, height=8, rate_hz=50.0, timeout_s=60.0, **common
        ) as cameras,
    ):
        damaged = watcher.report(timeout_s=60.0)["damaged"]
        cameras.report(timeout_s=60.0)
    assert damaged == 5


def test_a_service_is_called_from_another_process(embedded):
    figures = measure_calls(embedded, embedded, Calls(calls=5, warm_up=1))
    assert 0 < figures["p50_ms"] <= figures["max_ms"]


def test_the_parts_of_a_start_add_up(embedded):
    figures = measure_starts(embedded, embedded, Starts(starts=1))
    parts_s = figures["imports_s"] + figures["joining_s"] + figures["first_message_s"]
    assert parts_s == pytest.approx(figures["p50_s"])
    assert figures["imports_s"] > 0


def test_a_program_that_fails_is_an_error_with_its_words(embedded):
    with (
        running(embedded, "watcher", frames="many") as watcher,
        pytest.raises(RosError, match=r"watcher.*embedded(.|\n)*Traceback"),
    ):
        watcher.report(timeout_s=60.0)


def test_a_program_that_does_not_end_is_ended(embedded):
    with running(embedded, "echo_server") as server:
        with pytest.raises(RosError, match="did not end within 0 s"):
            server.report(timeout_s=0.1)
        process = server._process
    assert process.poll() is not None


def test_sensor_data_is_measured_besides_reliable():
    assert named(Images()) == "images, reliable, depth 20"
    assert named(best_effort(Images())) == "images, best effort, depth 5"


def test_the_programs_need_rclpy_alone():
    """Real ROS 2 runs them from a Python without FastVLA's dependencies."""
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'rclpy':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "        if name.split('.')[0] in ('numpy', 'yaml', 'cyclonedds', 'rosbags', 'torch'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from fastvla_ros.bench.peers.__main__ import main\n"
        "try:\n"
        "    main('rclpy', 'cameras', '{}')\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "rclpy", done.stderr
