"""What the words point at: where learned features are in the pictures, and what follows from it.

Shapes: b batch, c cameras, n tokens of a camera, w their width, q points, h hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImagePoints(nn.Module):
    """Where in one camera's tokens a few learned features are, as means over the grid.

    Source: spatial softmax, Finn et al., arXiv:1509.06113.
    """

    def __init__(self, width: int, grid: tuple[int, int], *, points: int) -> None:
        super().__init__()
        self.scores = nn.Linear(width, points)
        self.grid = grid

    def forward(self, tokens_bnw: Tensor) -> Tensor:
        """Columns and rows from -1 to 1, [b, q, 2]."""
        rows, columns = (torch.linspace(-1, 1, n, device=tokens_bnw.device) for n in self.grid)
        across, down = columns.repeat(len(rows)), rows.repeat_interleave(len(columns))
        places = torch.stack([across, down], dim=1)
        return self.scores(tokens_bnw).float().softmax(dim=1).mT @ places


class Pointer(nn.Module):
    """Points of every camera, what was said and the state, to what a motion leads to.

    Args:
        width: Of a token.
        grid: Rows and columns of a camera's tokens.
        points: Learned features per camera.
        said, state: Numbers that tell the words, and the robot's state.
    """

    def __init__(
        self,
        width: int,
        grid: tuple[int, int],
        *,
        cameras: int,
        points: int,
        said: int,
        state: int,
    ) -> None:
        super().__init__()
        self.cameras = nn.ModuleList(
            ImagePoints(width, grid, points=points) for _ in range(cameras)
        )
        self.out_width = 2 * width
        self.layers = nn.Sequential(
            nn.Linear(cameras * (2 * points + 1) + said + state, self.out_width),
            nn.SiLU(),
            nn.Linear(self.out_width, self.out_width),
            nn.SiLU(),
        )

    def forward(
        self, images_bpw: Tensor, present_bc: Tensor, said_bl: Tensor, state_bs: Tensor
    ) -> Tensor:
        """Features [b, h]; a missing camera has all its points in the middle.

        Args:
            images_bpw: Tokens of all cameras, one camera after the other, [b, c * n, w].
            present_bc: bool [b, c].
        """
        images = images_bpw.unflatten(1, (present_bc.shape[1], -1))
        points = [
            (camera(images[:, number]) * present_bc[:, number, None, None]).flatten(1)
            for number, camera in enumerate(self.cameras)
        ]
        known = [*points, present_bc, said_bl, state_bs]
        weight = self.layers[0].weight
        return self.layers(torch.cat([numbers.to(weight.dtype) for numbers in known], dim=1))
