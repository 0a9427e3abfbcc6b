"""The example's tree in the demo's world: simulated robot, guard and gripper, the expert's hand."""

from __future__ import annotations

import pytest

from fastvla_ros.examples.behaviour_tree import run_tree

COLOURS = ("red", "green", "blue")


@pytest.mark.slow
def test_three_cubes_come_into_their_bowls(graph, expert):
    from rclpy.node import Node

    from fastvla_ros.examples.three_cubes import ThreeCubes, TreeOptions

    node = graph.process.add(Node("planner", use_global_arguments=False))
    tasks = [f"put the {colour} cube in the bowl" for colour in COLOURS]
    tree = ThreeCubes(node, tasks, options=TreeOptions(seed=4))
    said: list[str] = []
    assert run_tree(tree, say=said.append), said
    for leaf in tree.leaves:
        assert [report.outcome for report in leaf.reports] == ["success"], leaf.reports
        assert leaf.reports[0].commands_sent > 30
    assert expert.inferences > 20
    assert len([line for line in said if line.startswith("fetch a tray")]) == len(COLOURS)
