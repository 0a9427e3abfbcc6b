"""`fastvla record`: an episode of a robot, or demonstrations of the scripted expert."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from fastvla_core.arguments import positive_float, positive_int
from fastvla_core.errors import DatasetError, FastVLAError
from fastvla_core.models.hub import find_checkpoint
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.sim.catalogue import contract_name
from fastvla_core.sim.tasks import TASK_KINDS, TASKS
from training.bags.writer import EpisodeWriter
from training.progress import CountBar
from training.record_expert import Driver, TaskCount, record_expert_episodes

HELP = """Record one episode of a running robot into a bag (--task TEXT), or demonstrations of the
scripted expert in the simulator (--expert). A live recording ends with the task's outcome, with
Ctrl-C, or after --duration; what was recorded until then is kept. Recordings of the expert go on
where they were stopped."""

_RECORDER = "fastvla_ros.recorder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=Path, required=True, help="the bag, or folder of bags, to be")
    parser.add_argument(
        "--task",
        required=True,
        help="live: the instruction. With --expert: "
        f"{', '.join(TASK_KINDS)} or metaworld/TASK, several with commas, or all that the shipped "
        "policy knows",
    )
    parser.add_argument(
        "--contract", help="robot contract: FILE or name (default: the task's, else tabletop)"
    )
    live = parser.add_argument_group("live recording")
    live.add_argument(
        "--duration", type=positive_float, metavar="S", help="end after so many seconds"
    )
    live.add_argument("--namespace", default="", help="namespace of the robot's topics")
    live.add_argument("--use-sim-time", action="store_true", help="take the time from /clock")
    live.add_argument(
        "--outcome",
        choices=["success", "failure", "unknown"],
        default="unknown",
        help="how it ended, where nobody publishes task_outcome; training takes successes",
    )
    expert = parser.add_argument_group("demonstrations")
    expert.add_argument("--expert", action="store_true", help="record the scripted expert")
    expert.add_argument("--episodes", type=positive_int, default=20, help="per task (default 20)")
    expert.add_argument("--seed", type=int, default=1_000_000, help="of the first scene")
    expert.add_argument("--workers", type=positive_int, default=2, help="processes (default 2)")
    expert.add_argument("--no-noise", action="store_true", help="leave the expert undisturbed")
    expert.add_argument(
        "--driver",
        metavar="POLICY",
        help="a folder or shipped name: this policy acts for a while before the expert takes over, "
        "so that what its mistakes lead to is demonstrated too",
    )
    expert.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(args: argparse.Namespace) -> int:
    """Record; 0 when everything that was asked for is there."""
    if not args.expert:
        return _record_live(args, load_contract(args.contract or "tabletop"))
    kinds: list[str] = (
        list(TASKS) if args.task == "all" else [k.strip() for k in args.task.split(",")]
    )
    contract = load_contract(args.contract or contract_name(kinds[0]))
    started = time.monotonic()
    with CountBar("episodes") as bar:
        counts = record_expert_episodes(
            args.out,
            episodes=dict.fromkeys(kinds, int(args.episodes)),
            seed=args.seed,
            contract=contract,
            workers=args.workers,
            noise=not args.no_noise,
            driver=Driver(policy=find_checkpoint(args.driver)) if args.driver else None,
            progress=bar,
        )
    _print_counts(counts, wall_s=time.monotonic() - started, as_json=args.json)
    if any(count.failed for count in counts):
        raise DatasetError(
            "the expert failed in "
            + ", ".join(f"{c.failed} scenes of '{c.task}'" for c in counts if c.failed),
            mend="the others are kept; record the rest into another folder with another --seed",
        )
    return 0


def _record_live(args: argparse.Namespace, contract: RobotContract) -> int:
    if not args.task.strip():
        raise DatasetError(
            "the instruction is empty", mend="say what to do: --task 'pick up the red cube'"
        )
    # Only recording from a robot needs ROS, and training must work without it.
    recorder = importlib.import_module(_RECORDER)
    writer = EpisodeWriter(args.out, contract=contract, instruction=args.task)
    with writer:
        try:
            outcome = recorder.record_live(
                writer,
                contract=contract,
                duration_s=args.duration,
                namespace=args.namespace,
                use_sim_time=args.use_sim_time,
            )
        except (FastVLAError, OSError):
            if writer.message_count:
                kept = writer.close()
                print(f"{kept}: {writer.message_count} messages are kept", file=sys.stderr)
            else:
                writer.discard()
            raise
        if outcome == "unknown":
            outcome = args.outcome
        writer.close(outcome)
    print(f"{writer.folder}: {writer.message_count} messages, outcome: {outcome}")
    return 0


def _print_counts(counts: list[TaskCount], *, wall_s: float, as_json: bool) -> None:
    frames = sum(count.frames for count in counts)
    if as_json:
        rows = [
            {
                "task": c.task,
                "kept": c.kept,
                "found": c.found,
                "failed": c.failed,
                "attempts": c.attempts,
                "frames": c.frames,
            }
            for c in counts
        ]
        json.dump(
            {"tasks": rows, "frames": frames, "wall_s": wall_s, "frames_per_s": frames / wall_s},
            sys.stdout,
        )
        print()
        return
    width = max(8, *(len(c.task) for c in counts))
    print(f"{'task':{width}} {'recorded':>8} {'there before':>12} {'attempts':>8} {'frames':>8}")
    for c in counts:
        print(f"{c.task:{width}} {c.kept:8} {c.found:12} {c.attempts:8} {c.frames:8}")
    print(f"{frames} frames in {wall_s:.1f} s ({frames / wall_s:.0f} frames/s)")
