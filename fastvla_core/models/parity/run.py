"""Running a policy on every stored case of a folder, and saying how near it comes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastvla_core.errors import CheckpointError
from fastvla_core.models.lerobot.processor import LeRobotProcessor
from fastvla_core.models.loading import load_config, load_model
from fastvla_core.models.parity.cases import find_case_folders, read_cases
from fastvla_core.models.parity.compare import Deviation, all_close, compare, worst


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """How one case went.

    Attributes:
        prompts_equal: Whether the processors wrote the stored prompts.
    """

    policy: str
    case: str
    prompts_equal: bool
    deviations: list[Deviation]

    @property
    def passed(self) -> bool:
        """Whether every tensor that could be compared is near enough."""
        return self.prompts_equal and all_close(self.deviations)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a number that is not finite is a string."""
        return {
            "policy": self.policy,
            "case": self.case,
            "passed": self.passed,
            "prompts_equal": self.prompts_equal,
            "max_action_error": _plain(worst(self.deviations, actions=True)),
            "max_relative_error": _plain(worst(self.deviations, actions=False)),
            "tensors": {
                d.name: {
                    key: _plain(value)
                    for key, value in dataclasses.asdict(d).items()
                    if key != "name" and value != ""
                }
                for d in self.deviations
            },
        }


def run_parity(folder: Path) -> list[CaseResult]:
    """Run every case of every policy in a folder, in float32 on the CPU.

    Raises:
        CheckpointError: the folder holds no cases, or a checkpoint cannot be loaded.
    """
    return [result for path in find_case_folders(folder) for result in _policy(path)]


def _policy(folder: Path) -> list[CaseResult]:
    from fastvla_core.models.parity.traces import trace

    checkpoint = folder / "checkpoint"
    family, config = load_config(checkpoint)
    processor = family.load_processor(checkpoint, config)
    if not isinstance(processor, LeRobotProcessor):
        raise CheckpointError(
            f"{checkpoint}: type '{config.to_dict()['type']}' has no stored cases",
            mend="parity is for policies that another implementation trained",
        )
    model = load_model(family, config, checkpoint, quantization=None).float().eval()
    results = []
    for case in read_cases(folder):
        with torch.inference_mode():
            computed = trace(model, processor, case)
        prompts = processor.prompts(case.transition)
        results.append(
            CaseResult(
                policy=folder.name,
                case=case.name,
                prompts_equal=not case.prompts or prompts == case.prompts,
                deviations=compare(case.tensors, computed),
            )
        )
    return results


def as_text(results: list[CaseResult]) -> str:
    """The results for people: one line per case, and one per tensor that failed."""
    lines = [f"{'policy':<14} {'case':<34} {'actions':>9} {'others':>9}  (abs, rel)"]
    for result in results:
        actions, others = (worst(result.deviations, actions=a) for a in (True, False))
        verdict = "" if result.passed else "  FAILED"
        lines.append(
            f"{result.policy:<14} {result.case:<34} {actions:>9.2e} {others:>9.2e}{verdict}"
        )
        if not result.prompts_equal:
            lines.append("    the prompt is another one")
        lines += [f"    {_failure(d)}" for d in result.deviations if d.passed is False]
    skipped = sorted({d.name for r in results for d in r.deviations if d.passed is None})
    if skipped:
        lines.append(f"stored, but not computed: {', '.join(skipped)}")
    passed = sum(result.passed for result in results)
    lines.append(f"{passed} of {len(results)} cases passed")
    return "\n".join(lines)


def _failure(deviation: Deviation) -> str:
    if deviation.note:
        return f"{deviation.name}: {deviation.note}"
    return (
        f"{deviation.name}: error {deviation.absolute:.3g}, relative {deviation.relative:.3g}, "
        f"allowed {deviation.limit:g}"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def to_json(results: list[CaseResult]) -> Mapping[str, Any]:
    """The results for programs."""
    return {
        "passed": all(result.passed for result in results),
        "cases": [result.to_dict() for result in results],
    }
