"""`fastvla eval`: success in the simulator, with an interval, as a table and JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from fastvla_core.errors import FastVLAError
from fastvla_core.sim.tasks import TASKS
from training.evaluate import EvaluationConfig, EvaluationResult, evaluate

HELP = (
    "Run a policy in closed loop in the simulator over a range of seeds and print its success "
    "rate with a 95 % interval. Seeds from 10,000,000 on were never trained on. "
    "Exit status: 0, or 1 when --at-least was given and missed."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla eval`."""
    parser.add_argument("--policy", default="nano", help="checkpoint folder or shipped name")
    parser.add_argument("--task", default="all", choices=[*TASKS, "all"])
    parser.add_argument(
        "--seeds", type=_seed_range, default=(10_000_000, 10_000_200), metavar="A:B",
        help="first seed and the one after the last (default 10000000:10000200)",
    )  # fmt: skip
    parser.add_argument("--quantization", choices=["nf4", "int8"], help="default: as stored")
    parser.add_argument(
        "--paraphrase", action="store_true", help="instructions kept out of training"
    )
    parser.add_argument(
        "--mask-camera", action="append", default=[], metavar="NAME", help="take a camera away"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--at-least", type=float, metavar="RATE", help="fail below this success")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; see HELP for the exit status."""
    kinds = TASKS if args.task == "all" else (args.task,)
    results: list[EvaluationResult] = []
    print(f"{'task':8} {'success':>13} {'95 % interval':>18} {'wrong object':>13} {'time':>7}")
    for kind in kinds:
        config = EvaluationConfig(
            policy=args.policy,
            task=kind,
            seeds=args.seeds,
            quantization=args.quantization,
            paraphrase=args.paraphrase,
            masked_cameras=tuple(args.mask_camera),
            workers=args.workers,
        )
        result = evaluate(config)
        results.append(result)
        low, high = result.interval
        print(
            f"{kind:8} {result.successes:4d}/{result.episodes:<4d}{result.success_rate:5.1%} "
            f"{low:8.1%} - {high:6.1%} {result.wrong_object:8d} {result.mean_time_s:9.2f} s"
        )
    if args.json is not None:
        rows = [dataclasses.asdict(r) for r in results]
        settings = {
            "policy": args.policy,
            "seeds": list(args.seeds),
            "quantization": args.quantization,
            "paraphrase": args.paraphrase,
            "masked_cameras": args.mask_camera,
        }
        _write_json(args.json, {"settings": settings, "results": rows})
    short = [r.task for r in results if args.at_least and r.success_rate < args.at_least]
    if short:
        print(f"below {args.at_least:.0%}: {', '.join(short)}", file=sys.stderr)
    return 1 if short else 0


def _write_json(path: Path, data: object) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1, default=str).replace("NaN", "null"))
    except OSError as error:
        raise FastVLAError(f"{path}: cannot be written: {error.strerror}") from error


def _seed_range(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    try:
        return int(first), int(last)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not FIRST:LAST") from None
