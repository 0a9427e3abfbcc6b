"""`fastvla bench policy`: one race per policy, from one command."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fastvla_core.errors import FastVLAError
from fastvla_core.models.loading import load_config
from fastvla_core.models.registry import POLICIES
from fastvla_core.models.weightless import weightless
from training.bench.contest.contenders import contenders
from training.bench.contest.job import load_inputs
from training.bench.contest.race import Race
from training.bench.contest.rates import Rates, measure_rates
from training.bench.contest.table import Row, make_row, table_lines
from training.bench.contest.work import count_work
from training.bench.contest.workloads import Workload, known_shape, prepare
from training.memory import available_memory
from training.optimization import multiplies_bf16

_PACKAGES = (
    "torch", "triton", "transformers", "bitsandbytes", "openvino", "onnxruntime", "safetensors",
)  # fmt: skip
# Weights, copies of them in other types, and a library or two per contender.
_BYTES_PER_PARAMETER, _BYTES_PER_PROCESS = 6, 5e8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RaceOptions:
    """What `fastvla bench policy` is asked for.

    Attributes:
        policy: A name of `workloads.prepare`; None for those that suit the device.
        device: "cpu" or "cuda"; None for a GPU where there is one.
        inputs: That every contender is checked on; None: 100, on a processor 3 of a large policy.
        replays: Inferences that are timed per contender; None: 1,000, less where time is short.
        minutes: For everything.
        only: Parts of contenders' names; the others are left out, but for the reference.
        lerobot_python, openpi_python: Interpreters that have them; see `contenders`.
    """

    policy: str | None = None
    device: str | None = None
    inputs: int | None = None
    replays: int | None = None
    minutes: float = 8.5
    threads: int = 1
    only: tuple[str, ...] = ()
    lerobot_python: str | None = None
    openpi_python: str | None = None


def run_races(options: RaceOptions) -> dict[str, Any]:
    """Race on every policy, print the tables, and return all numbers.

    Raises:
        FastVLAError: a checkpoint cannot be loaded, or there is no reference.
    """
    end = time.monotonic() + 60 * options.minutes
    torch.set_num_threads(options.threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    compute = compute_types(device)
    rates = measure_rates(device, types=compute)
    print(rates_line(rates), flush=True)
    policies = [options.policy] if options.policy else list(_usual_policies(device))
    report: dict[str, Any] = {
        "device": device,
        "versions": versions(),
        "rates": dataclasses.asdict(rates),
        "races": {},
    }
    for index, policy in enumerate(policies):
        seconds = (end - time.monotonic()) / (len(policies) - index)
        try:
            workload, rows = _race(
                policy, options, device=device, compute=compute, rates=rates, seconds=seconds
            )
        except FastVLAError as error:
            # The policies behind it are still of use.
            if len(policies) == 1:
                raise
            print(f"\n{policy}: not measured: {error}", flush=True)
            report["races"][policy] = {"why": error.message}
            continue
        print(*table_lines(workload, rows), sep="\n", flush=True)
        report["races"][policy] = {
            "shape": workload.shape,
            "parameters": workload.parameters,
            "rows": [dataclasses.asdict(row) for row in rows],
        }
    return report


def compute_types(device: str) -> tuple[str, ...]:
    """Types in which a device multiplies quickly, float32 first."""
    fast = multiplies_bf16(torch.device(device))
    return ("fp32", "bf16") if fast else ("fp32",)


def rates_line(rates: Rates) -> str:
    """What the device can do, as text."""
    products = ", ".join(
        f"{flops / 1e12:.3g} TFLOP/s {k}" for k, flops in rates.flops_per_s.items()
    )
    return f"measured limits: copies {rates.copy_bytes_per_s / 1e9:.3g} GB/s, products {products}"


def versions() -> dict[str, str]:
    """Installed versions of what the numbers depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _usual_policies(device: str) -> Sequence[str]:
    # 3.3 billion weights in float32 take 13 GB and a minute per chunk on a small machine.
    return ("nano", "smolvla") if device == "cpu" else ("nano", "smolvla", "pi0", "pi05")


def _race(
    policy: str,
    options: RaceOptions,
    *,
    device: str,
    compute: tuple[str, ...],
    rates: Rates,
    seconds: float,
) -> tuple[Workload, list[Row]]:
    end = time.monotonic() + seconds
    few = device == "cpu" and known_shape(policy) is not None
    with TemporaryDirectory() as folder:
        workload = prepare(
            policy, Path(folder), inputs=options.inputs or (3 if few else 100), device=device
        )
        everybody = contenders(
            workload.policy_type,
            device=device,
            compute=compute,
            lerobot_python=options.lerobot_python,
            openpi_python=options.openpi_python,
        )
        everybody = [
            c
            for index, c in enumerate(everybody)
            if index == 0 or not options.only or any(part in c.name for part in options.only)
        ]
        if device == "cuda":
            # What drawing the weights took is free for the contenders.
            torch.cuda.empty_cache()
        able = sum(not c.missing for c in everybody)
        size = _BYTES_PER_PROCESS + _BYTES_PER_PARAMETER * workload.parameters
        free = available_memory(torch.device(device))
        race = Race(
            workload,
            device=device,
            threads=options.threads,
            replays=options.replays or 1000,
            seconds=end - time.monotonic(),
            in_turn=size * able < 0.7 * free,
            say=lambda line: print(f"  ... {line}", flush=True),
        )
        results = race.run(everybody)
        family, config = load_config(workload.checkpoint)
        with weightless():
            model = POLICIES.load(workload.policy_type).model(config).eval()
        work = count_work(model, load_inputs(workload.inputs, device="cpu")[0])
    del family
    return workload, [make_row(result, work=work, rates=rates) for result in results]
