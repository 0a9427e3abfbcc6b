"""ACT and Diffusion Policy through the training loop and the simulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastvla_core.contract_binding import RobotBinding
from fastvla_core.errors import ObservationError
from fastvla_core.policy import FastVLA
from fastvla_core.robot.contract_file import load_contract
from training.bench.training_speed import random_cache
from training.dataset import StepDataset
from training.evaluate import EvaluationConfig, evaluate
from training.finetune import Trainer
from training.recipe import TrainConfig

DATA = Path(__file__).parents[1] / "parity/data"
CONFIG = TrainConfig(
    steps=4, batch_size=4, checkpoint_every=2, warmup_steps=1, precision="fp32", validation=0.0
)


def bound(name: str) -> FastVLA:
    binding = RobotBinding(action_dt_s=0.1)
    folder = DATA / name / "checkpoint"
    return FastVLA.from_pretrained(folder, contract=load_contract("tabletop"), binding=binding)


def trainer(policy: FastVLA, out: Path) -> Trainer:
    out.mkdir(parents=True, exist_ok=True)
    dataset = StepDataset(
        random_cache(policy, frames=24),
        cameras=policy.config.cameras,
        chunk_size=policy.config.chunk_size,
        past_steps=len(policy.history_s),
        validation=0.0,
    )
    return Trainer(policy, dataset=dataset, config=CONFIG, out=out)


@pytest.mark.parametrize("name", ["act", "diffusion", "diffusion_ddim"])
def test_a_killed_run_resumes_to_exactly_the_same_policy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    straight = bound(name)
    before = {n: t.clone() for n, t in straight.model.state_dict().items()}
    folder = trainer(straight, tmp_path / "straight").run()
    step = Trainer._step

    def killed(self: Trainer, number: int, batch: object) -> float:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", killed)
        broken = trainer(bound(name), tmp_path / "resumed")
        with pytest.raises(KeyboardInterrupt):
            broken.run()
    trainer(bound(name), tmp_path / "resumed").run()
    one, other = (FastVLA.from_pretrained(tmp_path / n / "policy") for n in ("straight", "resumed"))
    after, again = one.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(after[n], again[n]) for n in after)
    assert any(not torch.equal(after[n], before[n]) for n in after)
    assert folder.joinpath("architecture.json").is_file()
    assert one.config.robot_contract is not None


def test_in_the_simulator_a_policy_sees_the_step_before(monkeypatch: pytest.MonkeyPatch):
    policy = bound("diffusion")
    shown: list[tuple[int, ...]] = []
    infer = policy.infer_batch

    def watched(observations, **options):
        for seen in observations:
            shown.append(tuple(seen.stamp_ns - past.stamp_ns for past in seen.earlier))
        return infer(observations, **options)

    monkeypatch.setattr(policy, "infer_batch", watched)
    monkeypatch.setattr(FastVLA, "from_pretrained", lambda *_, **__: policy)
    result = evaluate(EvaluationConfig(policy="diffusion", task="reach", seeds=(0, 1), parallel=1))
    assert result.episodes == 1
    assert shown[0] == ()
    assert len(shown) > 2
    assert all(np.allclose(ages, 1e8, rtol=1e-3) and len(ages) == 1 for ages in shown[1:])
    with pytest.raises(ObservationError, match="reads several moments"):
        evaluate(EvaluationConfig(policy="diffusion", task="reach", seeds=(0, 1), latency_s=0.1))
