"""Contenders that are quick and wrong: run as a process by the tests of the race."""

from __future__ import annotations

from torch import Tensor

from training.bench.contest import ours
from training.bench.contest.child import Run, serve_inference
from training.bench.contest.job import Batch, Job


def build(job: Job, inputs: list[Batch]) -> Run:
    right = ours.build(job, inputs)

    def another_camera_order(batch: Batch) -> Tensor:
        return right({**batch, "images": batch["images"].flip(1)})

    def out_of_memory(batch: Batch) -> Tensor:
        raise MemoryError("no room\nfor a second line")

    return locals()[job.options["mistake"]]


if __name__ == "__main__":
    serve_inference(build)
