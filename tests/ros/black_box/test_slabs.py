"""Memory of pictures: copies that last, and slabs that are used again."""

from __future__ import annotations

import random
import threading
import weakref

import pytest

from fastvla_ros.black_box import slabs as slabs_module
from fastvla_ros.black_box.slabs import Slabs


class Taken:
    """The slabs that were taken from the kernel; see the fixture."""

    def __init__(self) -> None:
        self.slabs: list[weakref.ref[slabs_module._Slab]] = []

    def present(self) -> list[int]:
        """The capacities of those that did not go back."""
        return [slab.capacity for ref in self.slabs if (slab := ref()) is not None]


@pytest.fixture
def taken(monkeypatch) -> Taken:
    record = Taken()

    class Recorded(slabs_module._Slab):
        def __init__(self, capacity: int) -> None:
            super().__init__(capacity)
            record.slabs.append(weakref.ref(self))

    monkeypatch.setattr(slabs_module, "_Slab", Recorded)
    return record


def test_copies_stay_what_they_were_while_somebody_has_them():
    slabs, chance = Slabs(), random.Random(1)
    held: dict[int, tuple[memoryview, bytes]] = {}
    for k in range(3000):
        data = chance.randbytes(chance.choice((0, 100, 5_000, 60_000, 200_000)))
        held[k] = slabs.copy(data), data
        while len(held) > 50:
            held.pop(chance.choice(list(held)))
    assert all(view == data for view, data in held.values())
    assert all(view.readonly for view, _ in held.values())


@pytest.mark.parametrize("size", [27_000, 921_600])
def test_a_steady_stream_takes_no_new_memory(taken, size):
    slabs, held = Slabs(), []
    for k in range(2000):
        held = [*held[-49:], slabs.copy(bytes(size))]
        if k == 200:
            before = len(taken.slabs)
    assert len(taken.slabs) == before
    # One slab that fills up, one that empties, two spare ones.
    assert sum(taken.present()) <= 50 * size + 4 * max(slabs_module._SLAB_BYTES, size + 4096)


def test_what_is_dropped_goes_back_whatever_its_size(taken):
    slabs, chance, held = Slabs(), random.Random(1), []
    for _ in range(500):
        # Compressed pictures: no two are alike, and no slab of the one fits the other.
        held = [*held[-9:], slabs.copy(bytes(chance.randrange(150_000, 900_000)))]
    # Two spare ones, and the one that was dropped last.
    assert len(taken.present()) <= 10 + 3
    held.clear()
    slabs.copy(b"")
    assert len(taken.present()) <= 1 + 2


def test_views_may_be_dropped_in_any_thread(taken):
    slabs = Slabs()
    held = [slabs.copy(bytes(50_000)) for _ in range(100)]
    assert len(taken.present()) == 20
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert slabs.copy(b"new") == b"new"
    assert len(taken.present()) <= 1 + 2
