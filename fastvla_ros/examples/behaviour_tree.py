"""Runs the behaviour tree of `three_cubes.py` beside a running robot, in the same ROS domain.

    fastvla bringup
    behaviour_tree                       # with ROS 2: ros2 run fastvla behaviour_tree

The main thread ticks the tree ten times a second while another thread spins the node, so that no
tick waits for a message.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastvla_core.errors import DependencyError, FastVLAError
from fastvla_ros.bringup_spin import spinning_node

if TYPE_CHECKING:
    from fastvla_ros.examples.three_cubes import ThreeCubes

TICK_S = 0.1
_CANCEL_TIMEOUT_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `behaviour_tree` executable; status 0 when every cube is in its bowl."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    at = arguments.index("--ros-args") if "--ros-args" in arguments else len(arguments)
    args = _parser().parse_args(arguments[:at])
    try:
        return _run(args, ros_args=arguments[at:])
    except FastVLAError as error:
        print(f"behaviour_tree: {error}", file=sys.stderr)
        return 1


def run_tree(
    tree: ThreeCubes, *, say: Callable[[str], None] = print, until: Callable[[], bool] | None = None
) -> bool:
    """Tick the tree to its end; whether it succeeded.

    Args:
        say: Told whenever another leaf has its turn.
        until: Ends the tree early; a goal that runs is then canceled and waited for.
    """
    from py_trees.common import Status

    shown = ""
    try:
        while until is None or not until():
            tree.root.tick_once()
            tip = tree.root.tip()
            line = f"{tip.name}: {tip.feedback_message}" if tip is not None else shown
            if line != shown:
                say(line)
                shown = line
            if tree.root.status is not Status.RUNNING:
                return tree.root.status is Status.SUCCESS
            time.sleep(TICK_S)
        return False
    finally:
        _leave(tree)


def _leave(tree: ThreeCubes) -> None:
    """A goal must not outlive the tree that sent it."""
    from py_trees.common import Status

    tree.root.stop(Status.INVALID)
    deadline_s = time.monotonic() + _CANCEL_TIMEOUT_S
    while tree.client.busy and time.monotonic() < deadline_s:
        time.sleep(TICK_S / 2)


def _run(args: argparse.Namespace, *, ros_args: Sequence[str]) -> int:
    try:
        import py_trees
    except ImportError as error:
        raise DependencyError(
            "the example needs py_trees", mend="pip install 'fastvla[planner]'"
        ) from error
    stop: list[Any] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.append(True))
    with spinning_node("behaviour_tree", namespace=args.namespace, ros_args=ros_args) as node:
        from fastvla_ros.examples.three_cubes import ThreeCubes, TreeOptions

        tasks = [f"put the {colour} cube in the bowl" for colour in args.colours]
        options = TreeOptions(goal_timeout_s=args.timeout, trays=args.trays, seed=args.seed)
        tree = ThreeCubes(node, tasks, options=options)
        if args.show:
            print(py_trees.display.unicode_tree(tree.root))
            return 0
        done = run_tree(tree, until=lambda: bool(stop))
        print("every cube is in its bowl" if done else "not every cube is in its bowl")
    return 0 if done else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="behaviour_tree", description=__doc__)
    parser.add_argument(
        "--colours", nargs="+", default=("red", "green", "blue"), metavar="COLOUR",
        help="which cubes, in this order (default: red green blue)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="S", help="of each goal (%(default)s)"
    )
    parser.add_argument(
        "--no-trays", dest="trays", action="store_false",
        help="do not ask the simulated robot for a new scene before each cube",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="of the first scene (%(default)s)")
    parser.add_argument("--namespace", default="", help="namespace of the robot (default: none)")
    parser.add_argument("--show", action="store_true", help="print the tree and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
