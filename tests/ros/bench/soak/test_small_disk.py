"""A disk that is really full."""

import errno

import pytest

from fastvla_ros.bench.soak.small_disk import SmallDisk
from tests.core.bags.small_disk import can_mount

pytestmark = pytest.mark.skipif(not can_mount(), reason="no user namespaces here")


def test_it_is_full_and_then_it_is_not(tmp_path):
    with SmallDisk(tmp_path / "disk", mib=2) as disk:
        assert not list(disk.path.iterdir())
        # The mount is seen through its own path only.
        (disk.path / "before").write_bytes(b"kept")
        assert not list((tmp_path / "disk").iterdir())
        disk.fill()
        with pytest.raises(OSError, match="No space") as caught:
            (disk.path / "more").write_bytes(bytes(4096))
        assert caught.value.errno == errno.ENOSPC
        disk.free()
        disk.free()
        (disk.path / "more").write_bytes(bytes(1 << 20))
        assert (disk.path / "before").read_bytes() == b"kept"
        path = disk.path
    assert not path.exists()
