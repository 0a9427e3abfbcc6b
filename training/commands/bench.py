"""`fastvla bench`: the numbers of docs/benchmarks.md, from one command."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import platform
from pathlib import Path
from typing import Any

from fastvla_core.arguments import positive_float, positive_int
from fastvla_core.errors import FastVLAError
from fastvla_core.remote.dependency import require_grpc

HELP = (
    "Measure on this machine, one after the other: image to command without the model, the "
    "control rate, and the embedded runtime beside rclpy (ros), inference in fp32, NF4, int8 and "
    "compiled (policy), inference behind gRPC (remote), training (train). By name only: decoding "
    "with and without a draft, of a policy that writes tokens (draft)."
)
PARTS = ("ros", "policy", "remote", "train")
NAMED_PARTS = ("draft",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla bench`."""
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all), draft"
    )
    parser.add_argument("--policy", default="nano", help="checkpoint folder or shipped name")
    parser.add_argument(
        "--seconds", type=positive_float, default=60.0, help="of the control-rate run"
    )
    parser.add_argument("--runs", type=positive_int, default=1, help="of the comparison with rclpy")
    parser.add_argument("--rounds", type=positive_int, default=300, help="inferences per variant")
    parser.add_argument("--threads", type=positive_int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")


def run(args: argparse.Namespace) -> int:
    """Measure, print tables, write JSON."""
    parts = args.parts or PARTS
    known = PARTS + NAMED_PARTS
    unknown = sorted(set(parts) - set(known))
    if unknown:
        raise FastVLAError(f"there is no part '{unknown[0]}'", mend=f"one of {', '.join(known)}")
    report: dict[str, Any] = {"machine": machine()}
    print(f"{report['machine']['cpu']}, {report['machine']['cores']} cores")
    if "ros" in parts:
        # Named, not imported: the training room knows no ROS.
        pipeline = importlib.import_module("fastvla_ros.bench.pipeline")
        report["ros"] = pipeline.measure(seconds=args.seconds)
        _print_numbers("image to command, without the model", report["ros"])
        comparison = importlib.import_module("fastvla_ros.bench.comparison")
        plan = comparison.Plan.lasting(args.seconds / 3)
        report["runtimes"] = comparison.compare(plan, runs=args.runs)
        print(*comparison.lines(report["runtimes"]), sep="\n")
    if "policy" in parts:
        from training.bench.inference import time_variants

        rows = time_variants(args.policy, rounds=args.rounds, threads=args.threads)
        report["policy"] = [dataclasses.asdict(row) for row in rows]
        _print_rows("one chunk", report["policy"])
    if "remote" in parts and not args.parts and importlib.util.find_spec("grpc") is None:
        print("\nleft out: remote, because grpcio is not installed")
    elif "remote" in parts:
        require_grpc()
        from training.bench.remote import time_remote

        timings = time_remote(args.policy, rounds=args.rounds, threads=args.threads)
        report["remote"] = [dataclasses.asdict(row) for row in timings]
        _print_rows("one chunk, here and behind gRPC on loopback", report["remote"])
    if "train" in parts:
        import torch

        from training.bench.training_speed import samples_per_second

        torch.set_num_threads(args.threads)
        report["train"] = samples_per_second(args.policy)
        _print_numbers("training, samples/s at batch 64", report["train"])
    if "draft" in parts:
        from training.bench.draft import time_draft

        timing = time_draft(args.policy, rounds=args.rounds, threads=args.threads)
        report["draft"] = dataclasses.asdict(timing)
        _print_numbers("one chunk of tokens, greedily and with a draft", report["draft"])
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1))
    return 0


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
