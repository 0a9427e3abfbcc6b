"""The process of a contender: commands come in as JSON lines, results go out as JSON lines."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

import torch
from safetensors.torch import save_file
from torch import Tensor

from fastvla_core.engines.memory import reset_peak_memory
from training.bench.contest.job import Batch, Job, load_inputs
from training.bench.contest.replay import peak_mb, replay_ms, synchronize

Run = Callable[[Batch], Tensor]
Command = Callable[..., Mapping[str, Any]]


def serve_inference(build: Callable[[Job, list[Batch]], Run]) -> None:
    """Be the process of a contender that maps one batch to actions [1, t, a].

    Args:
        build: Makes the contender ready; the batches are the inputs, on its device.
    """

    def commands(job: Job) -> Mapping[str, Command]:
        inputs = load_inputs(job.inputs, device=job.device)
        run = build(job, inputs)
        reset_peak_memory(torch.device(job.device))

        def answer(*, to: str) -> Mapping[str, Any]:
            with torch.inference_mode():
                actions = [run(batch).float().cpu() for batch in inputs]
            save_file({"actions": torch.cat(actions).contiguous()}, to)
            return {}

        def replay(*, count: int, seconds: float, first: int) -> Mapping[str, Any]:
            with torch.inference_mode():
                times = replay_ms(
                    run, inputs, device=job.device, count=count, seconds=seconds, first=first
                )
            return {"times_ms": times, "peak_mb": peak_mb(job.device)}

        return {"answer": answer, "replay": replay}

    serve(commands)


def serve(make_commands: Callable[[Job], Mapping[str, Command]]) -> None:
    """Build what the job on the command line asks for, then do one command per line."""
    with _lines_out() as out:
        job = Job.from_json(sys.argv[1])
        torch.set_num_threads(job.threads)
        commands = _replied(out, lambda: make_commands(job), announce=True)
        while commands is not None and (line := sys.stdin.readline()):
            order = json.loads(line)
            command = commands[order.pop("do")]
            _replied(out, lambda command=command, order=order: command(**order))
        synchronize(job.device)


def _replied(out: TextIO, work: Callable[[], Any], *, announce: bool = False) -> Any:
    try:
        result = work()
    # Whatever a contender raises is why its row has no numbers; the others go on.
    except Exception as error:
        traceback.print_exc()
        text = str(error).strip()
        first_line = text.splitlines()[0] if text else ""
        print(json.dumps({"error": f"{type(error).__name__}: {first_line}"}), file=out, flush=True)
        return None
    print(json.dumps({} if announce else result), file=out, flush=True)
    return result


@contextmanager
def _lines_out() -> Iterator[TextIO]:
    """The way to the parent; what libraries print goes to the error stream instead."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        yield out
