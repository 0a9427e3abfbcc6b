"""What is kept between starts: made once, never half, never of another installation."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fastvla_ros.embedded.wire.file_cache import FileCache
from fastvla_ros.embedded.wire.runtime import INTERFACES
from fastvla_ros.embedded.wire.topic_types import TopicTypes
from fastvla_ros.embedded.wire.typestore import TypeStore


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def text_file(tmp_path, text="uint8 x\n"):
    path = tmp_path / "texts" / "a_msgs" / "msg" / "X.msg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_value_is_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"a": (1, 2)}

    first = FileCache.made_from("json", files=[]).get("x", make)
    second = FileCache.made_from("json", files=[]).get("x", make)
    # Both as JSON gives them, so that nothing depends on which start it is.
    assert first == second == {"a": [1, 2]}
    assert len(made) == 1


def test_a_changed_file_leads_elsewhere(tmp_path):
    path = text_file(tmp_path)
    FileCache.made_from("json", files=[path]).get("x", lambda: "old")
    path.write_text("uint16 longer\n")
    assert FileCache.made_from("json", files=[path]).get("x", lambda: "new") == "new"


def test_a_damaged_file_is_made_again(empty_cache):
    cache = FileCache.made_from("json", files=[])
    cache.get("x", lambda: 1)
    (file,) = empty_cache.glob("fastvla/*/x.json")
    file.write_text('{"half": ')
    assert cache.get("x", lambda: 2) == 2
    assert json.loads(file.read_text()) == 2
    assert [path.name for path in file.parent.iterdir()] == ["x.json"]


def test_a_home_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert FileCache.made_from("json", files=[]).get("x", lambda: 3) == 3


def test_a_value_that_cannot_be_made_leaves_nothing(empty_cache):
    cache = FileCache.made_from("json", files=[])
    with pytest.raises(ZeroDivisionError):
        cache.get("x", lambda: 1 // 0)
    assert not list(empty_cache.rglob("*.json"))


def test_a_missing_package_is_named():
    with pytest.raises(ModuleNotFoundError) as caught:
        FileCache.made_from("json.nothing_here", files=[])
    assert caught.value.name == "json.nothing_here"


def test_the_second_start_knows_the_same_interfaces(tmp_path):
    text_file(tmp_path, "float64 x 1.5\nbyte FLAG=7\nchar[<=3] c\n")
    folders = [INTERFACES, tmp_path / "texts"]
    first, second = TypeStore(folders), TypeStore(folders)
    assert first.packages() == second.packages()
    for name in ("a_msgs/msg/X", "sensor_msgs/msg/Image", "std_srvs/srv/Trigger_Response"):
        assert first.message(name) == second.message(name)
        assert first.type_hash(name) == second.type_hash(name)
        assert TopicTypes(first).plain(name) == TopicTypes(second).plain(name)
        assert TopicTypes(first).service(name) != TopicTypes(second).plain(name)
    assert second.message("a_msgs/msg/X").constants == {"FLAG": b"\x07"}
    assert second.message("a_msgs/msg/X").defaults == {"x": 1.5}


def test_the_second_start_imports_neither_rosbags_nor_what_its_messages_do_not_need():
    code = (
        "import sys\n"
        "from fastvla_ros.runtime import ensure_ros\n"
        "ensure_ros()\n"
        "from sensor_msgs.msg import Image\n"
        "import rclpy\n"
        "rclpy.init()\n"
        "rclpy.create_node('n').create_publisher(Image, 'a', 1)\n"
        "heavy = {'rosbags.typesys', 'cyclonedds.core', 'numpy', 'yaml', 'asyncio'}\n"
        "print(*heavy.intersection(sys.modules))\n"
        "rclpy.shutdown()\n"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert "rosbags.typesys" in first.stdout
    assert second.stdout == "\n", second.stderr
