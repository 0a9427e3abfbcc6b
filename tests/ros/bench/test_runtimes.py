"""The runtimes that are compared: the embedded one, and whatever the setup script gives."""

import sys
from types import ModuleType

import pytest

from fastvla_core.errors import RosError
from fastvla_ros.bench.runtimes import SETUP_VARIABLE, find_runtimes, sourced


@pytest.fixture
def fake_rclpy(tmp_path):
    """A folder with a package `rclpy` in it."""
    package, info = tmp_path / "rclpy", tmp_path / "rclpy-7.1.3.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    (package / "utilities.py").write_text(
        "get_rmw_implementation_identifier = lambda: 'rmw_of_the_test'\n"
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rclpy\nVersion: 7.1.3\n")
    return tmp_path


def test_a_script_that_gives_rclpy_is_the_second_column(fake_rclpy, monkeypatch):
    programs = fake_rclpy / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    setup = fake_rclpy / "setup.bash"
    setup.write_text(
        f'export PATH="{programs}:$PATH" PYTHONPATH="{fake_rclpy}"\necho sourcing talks\n'
    )
    monkeypatch.setenv(SETUP_VARIABLE, str(setup))
    embedded, real = find_runtimes()
    assert embedded.name == "embedded"
    assert set(embedded.versions) == {"cyclonedds", "rosbags"}
    assert real.name == "rclpy"
    assert (real.versions["rmw"], real.versions["version"]) == ("rmw_of_the_test", "7.1.3")
    assert real.command("cameras", "{}")[-3:] == ["rclpy", "cameras", "{}"]
    # The two must differ in themselves only, not in the size of fragments.
    assert "FragmentSize" in real.environment["CYCLONEDDS_URI"]


@pytest.mark.parametrize(("name", "count"), [("rclpy", 2), ("fastvla_ros.embedded.rcl", 1)])
def test_an_rclpy_that_is_imported_already_counts_when_it_is_the_real_one(
    fake_rclpy, monkeypatch, name, count
):
    monkeypatch.delenv(SETUP_VARIABLE, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(fake_rclpy))
    monkeypatch.setitem(sys.modules, "rclpy", ModuleType(name))
    assert len(find_runtimes()) == count


def test_a_script_without_rclpy_is_an_error_that_names_the_variable(tmp_path, monkeypatch):
    setup = tmp_path / "setup.bash"
    # Where ROS 2 is sourced already, its rclpy stands there.
    setup.write_text("export PYTHONPATH=\n")
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
