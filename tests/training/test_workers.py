"""Pools: an error or a dead worker ends the others at once, in words."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest

from fastvla_core.errors import DatasetError, SimError
from training.workers import worker_pool


def _fail() -> None:
    raise SimError("no graphics", mend="install them")


def _one_sleeps_and_one_fails() -> None:
    with worker_pool(2) as pool:
        pool.submit(time.sleep, 300)
        pool.submit(_fail).result()


def test_an_error_comes_out_whole_and_does_not_wait_for_the_other_jobs():
    started = time.monotonic()
    with pytest.raises(SimError, match="no graphics") as caught:
        _one_sleeps_and_one_fails()
    assert caught.value.mend == "install them"
    assert time.monotonic() - started < 60
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_reported_in_words():
    with pytest.raises(DatasetError, match="worker processes died"), worker_pool(1) as pool:
        pool.submit(os._exit, 1).result()


def test_results_of_a_pool_that_ends_well(capsys: pytest.CaptureFixture[str]):
    with worker_pool(1, start=print, arguments=("hello",)) as pool:
        assert pool.submit(abs, -3).result() == 3
