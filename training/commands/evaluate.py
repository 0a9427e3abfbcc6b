"""`fastvla eval`: success in the simulator, with an interval, as a table and JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from fastvla_core.arguments import positive_int, seconds, share
from fastvla_core.engines.names import ENGINE_CHOICES
from fastvla_core.errors import FastVLAError
from fastvla_core.models.vision_tokens.arguments import add_token_arguments, tokens_of
from fastvla_core.runtime.merging import CHUNK_MERGES
from fastvla_core.sim.tasks import FIRST_EVALUATION_SEED, TASK_KINDS, TASKS
from training import evaluation_table as table
from training.commands.env_argument import add_env_argument
from training.evaluate import EvaluationConfig, EvaluationResult, evaluate

HELP = (
    "Run a policy in closed loop in the simulator over a range of seeds and print its success "
    "rate with a 95 % interval. Seeds from 10,000,000 on were never trained on. "
    "Exit status: 0, or 1 when --at-least was given and missed."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla eval`."""
    parser.add_argument("--policy", default="nano", help="checkpoint folder or shipped name")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--task", default="all", choices=[*TASK_KINDS, "all"], help="of the table-top (default all)"
    )
    add_env_argument(what)
    parser.add_argument(
        "--seeds", type=_seed_range, metavar="A:B",
        default=(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 200),
        help="first seed and the one after the last (default 10000000:10000200)",
    )  # fmt: skip
    parser.add_argument("--quantization", choices=["nf4", "int8"], help="default: as stored")
    parser.add_argument(
        "--engine", choices=ENGINE_CHOICES, default="eager",
        help="what runs the network (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--paraphrase", action="store_true", help="instructions kept out of training"
    )
    parser.add_argument(
        "--mask-camera", action="append", default=[], metavar="NAME", help="take a camera away"
    )
    parser.add_argument(
        "--latency", type=seconds, metavar="S",
        help="run against the clock, with S seconds from an observation to its chunk (0 for none)",
    )  # fmt: skip
    parser.add_argument(
        "--chunk-merge", choices=CHUNK_MERGES, default="auto",
        help="how chunks follow each other, with --latency (default: auto)",
    )  # fmt: skip
    add_token_arguments(parser)
    parser.add_argument(
        "--workers", type=positive_int, default=os.cpu_count() or 1, help="processes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--at-least", type=share, metavar="RATE", help="fail below this success")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; see HELP for the exit status."""
    tasks: tuple[str, ...] = args.env or (TASKS if args.task == "all" else (args.task,))
    if args.json is not None:
        _check_writable(args.json)
    if args.seeds[0] < FIRST_EVALUATION_SEED:
        print(
            f"note: a policy may have been trained on scenes below {FIRST_EVALUATION_SEED}",
            file=sys.stderr,
        )
    tokens = tokens_of(args)
    results: list[EvaluationResult] = []
    width = table.task_width(tasks)
    print(table.head(width))
    for task in tasks:
        config = EvaluationConfig(
            policy=args.policy,
            task=task,
            seeds=args.seeds,
            quantization=args.quantization,
            engine=args.engine,
            paraphrase=args.paraphrase,
            masked_cameras=tuple(args.mask_camera),
            latency_s=args.latency,
            chunk_merge=args.chunk_merge,
            vision_tokens=tokens,
            workers=args.workers,
        )
        result = evaluate(config)
        results.append(result)
        print(table.line(result, width=width))
    if args.json is not None:
        rows = [table.row(r) for r in results]
        settings = {
            "policy": args.policy,
            "seeds": list(args.seeds),
            "quantization": args.quantization,
            "engine": args.engine,
            "paraphrase": args.paraphrase,
            "masked_cameras": args.mask_camera,
            "latency_s": args.latency,
            "chunk_merge": args.chunk_merge,
            "vision_tokens": tokens and dataclasses.asdict(tokens),
        }
        args.json.write_text(json.dumps({"settings": settings, "results": rows}, indent=1))
    short = [r.task for r in results if args.at_least and r.success_rate < args.at_least]
    if short:
        print(f"below {args.at_least:.0%}: {', '.join(short)}", file=sys.stderr)
    return 1 if short else 0


def _check_writable(path: Path) -> None:
    """An evaluation takes minutes: a place that cannot be written to must show before it."""
    is_new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise FastVLAError(
            f"{path}: cannot be written: {error.strerror}", mend="name another --json file"
        ) from error


def _seed_range(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    try:
        seeds = int(first), int(last)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not FIRST:LAST") from None
    if not 0 <= seeds[0] < seeds[1]:
        raise argparse.ArgumentTypeError(f"'{text}' names no scene: 0 <= FIRST < LAST")
    return seeds
