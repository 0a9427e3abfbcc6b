"""`fastvla bench`: the numbers of docs/benchmarks.md, from one command."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from fastvla_core.arguments import positive_float, positive_int, seconds, whole
from fastvla_core.errors import FastVLAError
from fastvla_core.remote.dependency import require_grpc

HELP = (
    "Measure on this machine, one after the other: image to command without the model, the "
    "control rate, and the embedded runtime beside rclpy (ros), inference by our engines beside "
    "torch, bitsandbytes and LeRobot, checked before it is timed (policy), inference behind gRPC "
    "(remote), training, in full and of adapters on packed weights (train), recordings to a cache "
    "and a cache to batches (data). Only when they are asked for: how the time of an inference "
    "grows with views, image, prompt, chunk, steps and batch (cost); decoding with and without a "
    "draft, of a policy that writes tokens (draft); pruned visual tokens and caches (tokens), "
    "on the shapes of larger policies (token-shapes), their success in the simulator "
    "(token-success); an hour of work, 1,000 goals with faults and 10,000 malformed messages "
    "(soak); exit status 1 when anything was violated."
)
_SHAPE_ROUNDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla bench`."""
    parser.add_argument(
        "parts", nargs="*", metavar="PART",
        help=f"of {', '.join(ALWAYS)} (default: all these), {', '.join(ON_REQUEST)}",
    )  # fmt: skip
    parser.add_argument(
        "--policy",
        help="checkpoint folder or shipped name (default: nano); soak: or fixed; policy and cost: "
        "or smolvla, pi0, pi05 in their true sizes with random weights (default: what suits the "
        "device)",
    )
    parser.add_argument(
        "--seconds", type=positive_float, default=60.0, help="of the control-rate run"
    )
    parser.add_argument("--runs", type=positive_int, default=1, help="of the comparison with rclpy")
    parser.add_argument(
        "--rounds", type=positive_int, help="inferences per variant (default: 300; policy: 1,000)"
    )
    parser.add_argument(
        "--episodes", type=positive_int, default=50, help="of token-success, per task and row"
    )
    parser.add_argument(
        "--row", action="append", default=[], help="of token-success: only this row"
    )
    parser.add_argument(
        "--large", action="store_true", help="with token-shapes: 2.9 billion weights, too"
    )
    parser.add_argument("--threads", type=positive_int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    race = parser.add_argument_group("policy")
    race.add_argument(
        "--budget",
        type=positive_float,
        default=8.5,
        metavar="MINUTES",
        help="for everything (default: 8.5)",
    )
    race.add_argument(
        "--inputs",
        type=positive_int,
        help="that every contender is checked on (default: 100; 3 of a large policy on a CPU)",
    )
    race.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="contenders with this in their name",
    )
    race.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU where there is one")
    race.add_argument(
        "--lerobot-python",
        metavar="PATH",
        help="interpreter that has LeRobot (default: $FASTVLA_LEROBOT_PYTHON, then this one)",
    )
    race.add_argument(
        "--openpi-python",
        metavar="PATH",
        help="interpreter that has openpi (default: $FASTVLA_OPENPI_PYTHON, then this one)",
    )
    soak = parser.add_argument_group("soak; 0 leaves a part out")
    soak.add_argument("--minutes", type=seconds, default=60.0, help="of work (default: 60)")
    soak.add_argument("--goals", type=whole, default=1000, help="with faults (default: 1000)")
    soak.add_argument("--malformed", type=whole, default=10_000, help="messages (default: 10000)")
    soak.add_argument("--seed", type=whole, default=0, help="of goals, faults, messages")


def run(args: argparse.Namespace) -> int:
    """Measure, print tables, write JSON."""
    parts: dict[str, _Part] = {**ALWAYS, **ON_REQUEST}
    unknown = sorted(set(args.parts) - parts.keys())
    if unknown:
        raise FastVLAError(f"there is no part '{unknown[0]}'", mend=f"one of {', '.join(parts)}")
    report: dict[str, Any] = {"machine": machine()}
    print(f"{report['machine']['cpu']}, {report['machine']['cores']} cores")
    for name, measure in parts.items():
        if name in (args.parts or ALWAYS):
            report |= measure(args)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1))
    return 1 if report.get("soak", {}).get("violations") else 0


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    import numpy
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [x.split(":", 1)[1] for x in info.read_text().splitlines() if "model name" in x]
        cpu = names[0].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
    }


def _ros(args: argparse.Namespace) -> dict[str, Any]:
    # Named, not imported: the training room knows no ROS.
    pipeline = importlib.import_module("fastvla_ros.bench.pipeline")
    numbers = pipeline.measure(seconds=args.seconds)
    _print_numbers("image to command, without the model", numbers)
    comparison = importlib.import_module("fastvla_ros.bench.comparison")
    plan = comparison.Plan.lasting(args.seconds / 3)
    runtimes = comparison.compare(plan, runs=args.runs)
    print(*comparison.lines(runtimes), sep="\n")
    return {"ros": numbers, "runtimes": runtimes}


def _policy(args: argparse.Namespace) -> dict[str, Any]:
    from training.bench.contest.command import RaceOptions, run_races

    options = RaceOptions(
        policy=args.policy,
        device=args.device,
        inputs=args.inputs,
        replays=args.rounds,
        minutes=args.budget,
        threads=args.threads,
        only=tuple(args.only),
        lerobot_python=args.lerobot_python,
        openpi_python=args.openpi_python,
    )
    return {"policy": run_races(options)}


def _remote(args: argparse.Namespace) -> dict[str, Any]:
    if not args.parts and importlib.util.find_spec("grpc") is None:
        print("\nleft out: remote, because grpcio is not installed")
        return {}
    require_grpc()
    from training.bench.remote import time_remote

    found = time_remote(_policy_name(args), rounds=_rounds(args), threads=args.threads)
    rows = [dataclasses.asdict(row) for row in found]
    _print_rows("one chunk, here and behind gRPC on loopback", rows)
    return {"remote": rows}


def _train(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from training.bench.contest.workloads import known_shape
    from training.bench.qlora import run_qlora
    from training.bench.training_speed import samples_per_second

    torch.set_num_threads(args.threads)
    report: dict[str, Any] = {}
    if known_shape(_policy_name(args)) is None:
        report["train"] = samples_per_second(_policy_name(args))
        _print_numbers("training of all weights, samples/s at batch 64", report["train"])
    report["qlora"] = run_qlora(
        policy=args.policy, device=_device(args), threads=args.threads, minutes=args.budget
    )
    return report


def _cost(args: argparse.Namespace) -> dict[str, Any]:
    from training.bench.cost import run_cost

    return {"cost": run_cost(policy=args.policy, device=_device(args), threads=args.threads)}


def _data(args: argparse.Namespace) -> dict[str, Any]:
    from training.bench.data import measure_data

    numbers = measure_data(seconds=args.seconds / 6)
    parts = {k: v for k, v in numbers.items() if isinstance(v, dict)}
    _print_numbers("the recording", {k: v for k, v in numbers.items() if k not in parts})
    for name, values in parts.items():
        _print_numbers(name, values)
    return {"data": numbers}


def _draft(args: argparse.Namespace) -> dict[str, Any]:
    from training.bench.draft import time_draft

    timing = time_draft(_policy_name(args), rounds=_rounds(args), threads=args.threads)
    numbers = dataclasses.asdict(timing)
    _print_numbers("one chunk of tokens, greedily and with a draft", numbers)
    return {"draft": numbers}


def _soak(args: argparse.Namespace) -> dict[str, Any]:
    report = importlib.import_module("fastvla_ros.bench.soak.command").measure(
        minutes=args.minutes,
        goals=args.goals,
        malformed=args.malformed,
        policy=_policy_name(args),
        seed=args.seed,
        say=lambda line: print(line, flush=True),
    )
    return {"soak": report}


def _tokens(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from training.bench.tokens import time_tokens, timing_line

    torch.set_num_threads(args.threads)
    print("\nvisual tokens: one chunk, on what the plain policy sees")
    rows = time_tokens(_policy_name(args), rounds=_rounds(args))
    print(*map(timing_line, rows), sep="\n", flush=True)
    return {"tokens": [dataclasses.asdict(row) for row in rows]}


def _token_shapes(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from training.bench.token_shapes import large_shapes, shape_line, smolvla_shapes, time_shapes

    torch.set_num_threads(args.threads)
    found = {}
    for name in ("smolvla", "large") if args.large else ("smolvla",):
        shapes = smolvla_shapes() if name == "smolvla" else large_shapes()
        kind = str(next(shapes.model.parameters()).dtype).removeprefix("torch.")
        print(f"\nvisual tokens: one chunk of {name} shapes, {kind}, random weights")
        rows = time_shapes(shapes, rounds=min(_rounds(args), _SHAPE_ROUNDS))
        print(*map(shape_line, rows), sep="\n", flush=True)
        found[name] = [dataclasses.asdict(row) for row in rows]
    return {"token-shapes": found}


def _token_success(args: argparse.Namespace) -> dict[str, Any]:
    from fastvla_core.sim.tasks import TASKS
    from training.bench.tokens import measure_success, success_line

    print(f"\nsuccess of {args.episodes} episodes each: {', '.join(TASKS)}", flush=True)
    rows = []
    found = measure_success(
        _policy_name(args), episodes=args.episodes, workers=args.threads, rows=args.row
    )
    for row in found:
        rows.append(dataclasses.asdict(row))
        print(success_line(row), flush=True)
    return {"token-success": rows}


def _policy_name(args: argparse.Namespace) -> str:
    return args.policy or "nano"


def _device(args: argparse.Namespace) -> str:
    import torch

    return args.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _rounds(args: argparse.Namespace) -> int:
    return args.rounds or 300


def _print_numbers(title: str, numbers: dict[str, Any]) -> None:
    print(f"\n{title}")
    for name, value in numbers.items():
        print(f"  {name:32} {value:.3f}" if isinstance(value, float) else f"  {name:32} {value}")


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    names = list(rows[0])
    print("  " + "".join(f"{name:>14}" for name in names))
    for row in rows:
        cells = (f"{v:14.3f}" if isinstance(v, float) else f"{v:>14}" for v in row.values())
        print("  " + "".join(cells))


_Part: TypeAlias = Callable[[argparse.Namespace], dict[str, Any]]
ALWAYS: dict[str, _Part] = {
    "ros": _ros,
    "policy": _policy,
    "remote": _remote,
    "train": _train,
    "data": _data,
}
ON_REQUEST: dict[str, _Part] = {
    "cost": _cost,
    "draft": _draft,
    "tokens": _tokens,
    "token-shapes": _token_shapes,
    "token-success": _token_success,
    "soak": _soak,
}
