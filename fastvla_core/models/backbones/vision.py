"""The interface of a vision stem, and the tower that applies stems to all cameras.

Shapes: b batch, c cameras, n tokens of one camera, w stem width, p prefix width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastvla_core.errors import CheckpointError
from fastvla_core.models.registry import VISION_STEMS


class VisionStem(Protocol):
    """Images of one camera to tokens; built as `Stem(options, height=..., width=...)`.

    Attributes:
        token_count: n, tokens per image.
        token_grid: Their rows and columns; needed only to prune visual tokens.
        token_width: w, size of a token.
        condition_width: Size of the vector that conditions the stem; 0 where it takes none.
    """

    token_count: int
    token_grid: tuple[int, int]
    token_width: int
    condition_width: int

    def __call__(self, images_b3hw: Tensor, condition: Tensor | None) -> Tensor: ...


class VisionTower(nn.Module):
    """Stems for all cameras, a camera embedding, and the projection to the prefix width.

    Args:
        options: "type" names a registered stem, "per_camera_weights" gives each camera a stem of
            its own; the rest are the stem's own options.
        cameras: Number of cameras c.
        height, width: Pixels of every image.
        out_width: p.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        cameras: int,
        height: int,
        width: int,
        out_width: int,
    ) -> None:
        super().__init__()
        own = {k: v for k, v in options.items() if k not in ("type", "per_camera_weights")}
        stem_class = VISION_STEMS.load(options["type"])
        count = cameras if options.get("per_camera_weights", False) else 1
        try:
            stems = [stem_class(own, height=height, width=width) for _ in range(count)]
        except (TypeError, KeyError) as error:
            raise CheckpointError(
                f"config.json: 'vision' does not fit the stem '{options['type']}': {error}",
                mend="correct its keys",
            ) from error
        self.stems = nn.ModuleList(stems)
        self.tokens_per_camera: int = stems[0].token_count
        self.condition_width: int = stems[0].condition_width
        self.projector = nn.Linear(stems[0].token_width, out_width)
        self.camera_embedding = nn.Parameter(torch.empty(cameras, out_width))
        nn.init.normal_(self.camera_embedding, std=0.02)
        if self.condition_width:
            self.camera_condition = nn.Parameter(torch.empty(cameras, self.condition_width))
            nn.init.normal_(self.camera_condition, std=0.02)

    def forward(
        self, images_bc3hw: Tensor, condition: Tensor | None, *, mask_bc: Tensor | None = None
    ) -> Tensor:
        """Tokens of all cameras, [b, c * n, p], cameras in order.

        Args:
            images_bc3hw: In [-1, 1]; planar, because the CPU's group norm is ten times slower on
                channels_last.
            condition: [b, condition_width], or None for a stem without condition.
            mask_bc: False where a camera is missing: its image is then not read, its tokens are
                zeros. None computes all of them, in shapes that do not depend on the data.
        """
        tokens = []
        for camera in range(images_bc3hw.shape[1]):
            pixels, own = images_bc3hw[:, camera], condition
            rows = None if mask_bc is None else mask_bc[:, camera].nonzero()[:, 0]
            if rows is not None:
                pixels, own = pixels[rows], None if own is None else own[rows]
            seen = self.look(camera, pixels, own)
            if rows is not None:
                seen = seen.new_zeros(len(images_bc3hw), *seen.shape[1:]).index_copy(0, rows, seen)
            tokens.append(seen)
        return torch.cat(tokens, dim=1)

    def look(self, camera: int, images_b3hw: Tensor, condition: Tensor | None) -> Tensor:
        """Tokens of one camera, [b, n, p]; see `forward`."""
        own = None if condition is None else condition + self.camera_condition[camera]
        stem = self.stems[min(camera, len(self.stems) - 1)]
        seen = stem(images_b3hw.to(self.projector.weight.dtype), own)
        return self.projector(seen) + self.camera_embedding[camera]

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of one image."""
        stem: Any = self.stems[0]
        return stem.token_grid
