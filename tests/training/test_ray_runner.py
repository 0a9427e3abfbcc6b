"""Conversion on a local Ray cluster gives the very bytes that a process pool gives."""

from __future__ import annotations

import importlib.util

import pytest

from fastvla_core.errors import DependencyError
from tests.training.test_cache import digest
from training.cache import Conversion
from training.cache_build import convert_bags, in_processes
from training.ray_runner import on_ray

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.mark.ray
@pytest.mark.timeout(400)
@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (pip install 'fastvla[ray]')")
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_writes_the_same_cache(write_episode, tmp_path, contract):
    import ray

    for k in range(3):
        write_episode(f"bags/e{k}", frames=10 + k)
    (tmp_path / "bags" / "e2" / "e2_0.mcap").write_bytes(b"hello")
    conversion = Conversion(contract=contract)
    try:
        cluster = convert_bags(
            [tmp_path / "bags"], tmp_path / "ray", conversion=conversion, run=on_ray()
        )
    finally:
        ray.shutdown()
    assert [entry.failed for entry in cluster.entries] == [False, False, True]
    convert_bags([tmp_path / "bags"], tmp_path / "pool", conversion=conversion, run=in_processes(1))
    assert digest(tmp_path / "ray") == digest(tmp_path / "pool")


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_the_mend_is_said():
    with pytest.raises(DependencyError, match="Ray is not installed") as caught:
        on_ray()
    assert "fastvla[ray]" in caught.value.mend
