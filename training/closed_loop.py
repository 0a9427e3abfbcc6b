"""Success in the simulator while training goes on: the best policy by success is kept."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from fastvla_core.errors import CheckpointError
from training.evaluate import EvaluationConfig, evaluate
from training.recipe import ClosedLoopConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessPoint:
    """How often the policy of a step did its tasks, over all of them."""

    step: int
    successes: int
    episodes: int

    @property
    def rate(self) -> float:
        """Between 0 and 1."""
        return self.successes / self.episodes


class ClosedLoop:
    """Judges checkpoints, and keeps the best as `out/best`, its history as `out/success.csv`.

    What an earlier run of the same folder has judged still counts.
    """

    def __init__(self, config: ClosedLoopConfig, *, out: Path) -> None:
        self._config, self._best, self._file = config, out / "best", out / "success.csv"

    def is_due(self, step: int) -> bool:
        """Whether the policy of this step is to be judged."""
        return step % self._config.every == 0 and all(p.step != step for p in self.points())

    def points(self) -> list[SuccessPoint]:
        """What has been judged, in the order of the steps.

        Raises:
            CheckpointError: the history cannot be read.
        """
        if not self._file.is_file():
            return []
        try:
            with self._file.open(newline="") as file:
                return [
                    SuccessPoint(
                        step=int(row["step"]),
                        successes=int(row["successes"]),
                        episodes=int(row["episodes"]),
                    )
                    for row in csv.DictReader(file)
                ]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self._file} cannot be read: {error}", mend="delete it; `best` starts anew"
            ) from error

    def judge(self, policy: Path, *, step: int) -> SuccessPoint:
        """Run the policy on every scene of every task; keep it if none before was better.

        Raises:
            CheckpointError: the policy cannot be loaded.
            SimError: the simulator cannot start.
        """
        results = [
            evaluate(
                EvaluationConfig(policy=str(policy), task=task, seeds=self._config.seeds, workers=2)
            )
            for task in self._config.tasks
        ]
        point = SuccessPoint(
            step=step,
            successes=sum(result.successes for result in results),
            episodes=sum(result.episodes for result in results),
        )
        before = self.points()
        if all(point.rate >= other.rate for other in before):
            self._keep(policy)
        self._write([*before, point])
        return point

    def _keep(self, policy: Path) -> None:
        partial = self._best.with_name(".best.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(policy, partial)
        shutil.rmtree(self._best, ignore_errors=True)
        os.replace(partial, self._best)

    def _write(self, points: list[SuccessPoint]) -> None:
        partial = self._file.with_name(".success.csv.partial")
        with partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "successes", "episodes", "rate"])
            writer.writerows([p.step, p.successes, p.episodes, f"{p.rate:.4f}"] for p in points)
        os.replace(partial, self._file)
