"""Layouts leave room for the hand and for every push."""

from __future__ import annotations

import numpy as np

from fastvla_core.sim.layout import free_push_sides, sample_layout


def test_every_layout_leaves_room_for_the_hand() -> None:
    for seed in range(200):
        layout = sample_layout(np.random.default_rng(seed))
        centres = layout.cubes[:, :2]
        gaps = np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(3, k=1)]
        assert gaps.min() > 0.09
        assert np.linalg.norm(centres - layout.bowl, axis=1).min() > 0.12
        for i in range(3):
            others = np.delete(centres, i, axis=0)
            assert free_push_sides(centres[i], others=others, bowl=layout.bowl)


def test_a_neighbour_in_the_lane_or_where_the_hand_must_go_blocks_a_side() -> None:
    cube, far = np.array([0.3, 0.0]), np.array([0.3, 0.5])
    assert free_push_sides(cube, others=np.array([[0.4, 0.1]]), bowl=far) == (-1, 1)
    # A push from -y moves the cube towards +y: a neighbour there is in its way, and one at +y
    # also stands where the hand would have to go to push from +y.
    near = np.array([[0.3, 0.06]])
    assert free_push_sides(cube, others=near, bowl=far) == ()
    lane = np.array([[0.3, 0.12]])
    assert free_push_sides(cube, others=lane, bowl=far) == (1,)


def test_a_cube_at_the_edge_of_the_reach_is_pushed_inwards() -> None:
    nobody = np.empty((0, 2))
    assert free_push_sides(np.array([0.38, 0.22]), others=nobody, bowl=np.zeros(2)) == (1,)
