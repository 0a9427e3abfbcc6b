"""The loss curve for TensorBoard, beside `loss.csv`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fastvla_core.errors import DependencyError
from training.closed_loop import SuccessPoint
from training.trainer_state import LossPoint


class Board:
    """Event files in a folder. They are written anew from what a resumed run already knows:

    points behind the checkpoint it goes on from would be there twice.

    Args:
        curve, successes: The points so far.
    Raises:
        DependencyError: TensorBoard is not installed.
    """

    def __init__(
        self, folder: Path, curve: Sequence[LossPoint], successes: Sequence[SuccessPoint]
    ) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise DependencyError(
                f"logs for TensorBoard need it ({error})",
                mend="pip install 'fastvla[tensorboard]', or leave `tensorboard` out",
            ) from error
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        for point in curve:
            self.add(point)
        for success in successes:
            self.add_success(success)

    def add(self, point: LossPoint) -> None:
        """One point of the loss curve."""
        self._writer.add_scalar("loss/training", point.loss, point.step)
        if point.validation_loss is not None:
            self._writer.add_scalar("loss/validation", point.validation_loss, point.step)
        self._writer.add_scalar("samples_per_s", point.samples_per_s, point.step)
        # A run that is killed has shown what it did.
        self._writer.flush()

    def add_success(self, point: SuccessPoint) -> None:
        """One closed-loop evaluation."""
        self._writer.add_scalar("success", point.rate, point.step)
        self._writer.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._writer.close()
