"""The runtimes that are compared: the embedded one, and whatever the setup script gives."""

import sys

import pytest

from fastvla_core.errors import RosError
from fastvla_ros.bench.runtimes import SETUP_VARIABLE, find_runtimes, sourced

FAKE_RCLPY = """
mkdir -p "{folder}/rclpy" "{folder}/rclpy-7.1.3.dist-info" "{folder}/bin"
touch "{folder}/rclpy/__init__.py"
echo "get_rmw_implementation_identifier = lambda: 'rmw_of_the_test'" > "{folder}/rclpy/utilities.py"
printf 'Metadata-Version: 2.1\\nName: rclpy\\nVersion: 7.1.3\\n' \\
    > "{folder}/rclpy-7.1.3.dist-info/METADATA"
ln -sf "{python}" "{folder}/bin/python3"
export PATH="{folder}/bin:$PATH" PYTHONPATH="{folder}" ROS_DISTRO=jazzy
echo "sourcing talks"
"""


def test_a_script_that_gives_rclpy_is_the_second_column(tmp_path, monkeypatch):
    setup = tmp_path / "setup.bash"
    setup.write_text(FAKE_RCLPY.format(folder=tmp_path, python=sys.executable))
    monkeypatch.setenv(SETUP_VARIABLE, str(setup))
    embedded, real = find_runtimes()
    assert embedded.name == "embedded"
    assert set(embedded.versions) == {"cyclonedds", "rosbags"}
    assert real.name == "rclpy"
    assert (real.versions["rmw"], real.versions["version"]) == ("rmw_of_the_test", "7.1.3")
    assert real.command("cameras", "{}")[-3:] == ["rclpy", "cameras", "{}"]
    # The two must differ in themselves only, not in the size of fragments.
    assert "FragmentSize" in real.environment["CYCLONEDDS_URI"]


def test_a_script_without_rclpy_is_an_error_that_names_the_variable(tmp_path, monkeypatch):
    setup = tmp_path / "setup.bash"
    setup.write_text("export NOTHING=1\n")
    monkeypatch.setenv(SETUP_VARIABLE, str(setup))
    with pytest.raises(RosError, match=SETUP_VARIABLE):
        find_runtimes()


def test_a_script_that_fails_is_an_error_with_its_words(tmp_path):
    setup = tmp_path / "setup.bash"
    setup.write_text("echo it broke >&2\nfalse\n")
    with pytest.raises(RosError, match="it broke"):
        sourced(setup)


def test_the_environment_of_a_script_is_taken_whole(tmp_path):
    setup = tmp_path / "setup.bash"
    setup.write_text("export LINES_OF_IT=$'a=1\\nb=2'\n")
    assert sourced(setup)["LINES_OF_IT"] == "a=1\nb=2"
