"""A cut or damaged recording gives what it holds, says what is lost, and never wrong bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastvla_core.bags import writer as writer_module
from fastvla_core.errors import BagError
from training.bags.inspection import (
    NOT_READABLE,
    READABLE,
    READABLE_WITH_LOSSES,
    inspect_bag,
)
from training.bags.reader import open_bag
from training.bags.writer import EpisodeWriter


@pytest.fixture
def chunked(tmp_path, contract, monkeypatch) -> Path:
    """A file of about twenty chunks."""
    monkeypatch.setattr(writer_module, "_CHUNK_BYTES", 2048)
    random = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "whole", contract=contract, instruction="lift") as writer:
        for k in range(80):
            pixels = random.integers(0, 255, (12, 16, 3), np.uint8)
            writer.image("front", stamp_ns=k, image=pixels)
    return tmp_path / "whole" / "whole_0.mcap"


def read(path: Path) -> tuple[list[bytes], list[str]]:
    with open_bag(path) as bag:
        content = [bytes(m.data) for m in bag.messages()]
        return content, [p.message for p in bag.problems if p.loses_data]


def test_a_cut_anywhere_keeps_the_complete_part(chunked, tmp_path):
    content = chunked.read_bytes()
    whole, _ = read(chunked)
    path = tmp_path / "cut.mcap"
    kept, refused = [], 0
    for length in [*range(0, len(content) - 1, 499), len(content) - 1]:
        path.write_bytes(content[:length])
        try:
            found, lost = read(path)
        except BagError as error:
            found, lost = [], [error.message]
            refused = length
        assert found == whole[: len(found)]
        assert lost or found == whole, length
        kept.append(len(found))
        assert inspect_bag(path).verdict != READABLE or found == whole
    assert kept == sorted(kept)
    assert kept[-1] == len(whole)
    assert len(set(kept)) > 15
    assert refused < 100


def test_a_cut_recording_still_names_its_task(chunked, tmp_path):
    path = tmp_path / "cut.mcap"
    path.write_bytes(chunked.read_bytes()[:8000])
    report = inspect_bag(path)
    assert report.instruction == "lift"
    assert report.outcome is None
    assert report.contract == "tabletop"


def test_a_flipped_byte_costs_at_most_its_chunk(chunked, tmp_path):
    content = chunked.read_bytes()
    whole, _ = read(chunked)
    path = tmp_path / "flipped.mcap"
    data_end = content.rfind(b"fastvla.outcome")
    for at in range(3000, data_end - 100, 997):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        found, lost = read(path)
        # Message indexes carry no messages, so a flip there may pass; wrong bytes never do.
        assert set(found) <= set(whole), at
        assert len(found) >= len(whole) - 8, (at, lost)
        assert lost or found == whole, at


def test_zeros_in_the_middle_are_jumped_over(chunked, tmp_path):
    content = chunked.read_bytes()
    whole, _ = read(chunked)
    path = tmp_path / "zeros.mcap"
    path.write_bytes(content[:20000] + bytes(4096) + content[24096:])
    found, lost = read(path)
    assert lost
    assert set(found) <= set(whole)
    assert len(whole) - 20 < len(found) < len(whole)


def test_noise_is_survived(chunked, tmp_path):
    random = np.random.default_rng(1)
    content = np.frombuffer(chunked.read_bytes(), np.uint8)
    path = tmp_path / "noise.mcap"
    for _ in range(60):
        damaged = content.copy()
        where = random.integers(8, len(content), int(random.integers(1, 60)))
        damaged[where] = random.integers(0, 256, len(where))
        path.write_bytes(damaged.tobytes())
        assert inspect_bag(path).verdict in (READABLE, READABLE_WITH_LOSSES, NOT_READABLE)


def test_a_damaged_database_gives_its_first_part(real_bags, tmp_path):
    content = (real_bags / "10_rosbag2_split_no_metadata_db3" / "multiple_files_0.db3").read_bytes()
    path = tmp_path / "cut.db3"
    verdicts = set()
    for length in range(0, len(content), 4096):
        path.write_bytes(content[:length])
        verdicts.add(inspect_bag(path).verdict)
    assert verdicts <= {READABLE_WITH_LOSSES, NOT_READABLE}
