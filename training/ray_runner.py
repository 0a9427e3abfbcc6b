"""Conversion on a Ray cluster: the same function as in a process pool, one source per task."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastvla_core.errors import DependencyError
from training.cache_files import CacheEntry
from training.cache_folder import Convert, Runner


def on_ray(address: str | None = None) -> Runner:
    """Runs conversions with Ray Data; sources and cache must be on a file system of all machines.

    Args:
        address: Of a running cluster; None starts one on this machine.

    Raises:
        DependencyError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DependencyError(
            "Ray is not installed", mend="pip install 'fastvla[ray]', on every machine"
        ) from error

    def run(convert: Convert, sources: Sequence[Path]) -> Iterator[CacheEntry]:
        if not sources:
            return
        if not ray.is_initialized():
            ray.init(address=address, include_dashboard=False, log_to_driver=False)
        # Rows are plain columns; functions and paths travel as bytes.
        rows = [{"job": pickle.dumps((convert, source))} for source in sources]
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_convert)
        for row in made.iter_rows():
            yield pickle.loads(row["entry"])

    return run


def _convert(row: dict[str, Any]) -> dict[str, Any]:
    convert, source = pickle.loads(row["job"])
    return {"entry": pickle.dumps(convert(source))}
