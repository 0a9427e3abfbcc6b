"""Less memory, the same gradients; other optimisers, still learning."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvla_core.errors import DatasetError
from tests.training.test_finetune import CONFIG, dataset_for, small_policy, trainer
from training.dataset import training_batch
from training.finetune import Trainer
from training.optimization import learning_rate, recompute_activations
from training.recipe import TrainConfig


def gradients(out: Path, config: TrainConfig) -> dict[str, torch.Tensor]:
    out.mkdir()
    policy = small_policy()
    run = Trainer(policy, dataset=dataset_for(policy), config=config, out=out)
    policy.model.train()
    batch = training_batch(
        dataset_for(policy), seed=0, step=0, batch_size=config.batch_size, camera_dropout=0.0
    )
    run._optimizer.step = lambda: None  # type: ignore[method-assign]
    run._step(0, batch)
    found = {n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None}
    assert found
    return found


@pytest.mark.parametrize("activations", ["recompute", "offload"])
def test_activations_that_are_not_kept_give_the_same_gradients(tmp_path: Path, activations):
    kept = gradients(tmp_path / "kept", CONFIG)
    other = gradients(tmp_path / "other", dataclasses.replace(CONFIG, activations=activations))
    assert kept.keys() == other.keys()
    for name, value in kept.items():
        torch.testing.assert_close(other[name], value, atol=1e-7, rtol=1e-5)


def test_recomputing_keeps_fewer_tensors_for_the_backward_pass():
    policy = small_policy()
    dataset = dataset_for(policy)
    batch = training_batch(dataset, seed=0, step=0, batch_size=4, camera_dropout=0.0)
    prepared = policy.training_batch(
        images=batch.images,
        image_mask=batch.image_mask,
        state=batch.state,
        actions=batch.actions,
        tasks=batch.tasks,
    )

    policy.model.train()
    before = kept_bytes(policy.model, prepared)
    assert recompute_activations(policy.model) > 4
    assert kept_bytes(policy.model, prepared) < 0.7 * before


def kept_bytes(model: Any, batch: Any) -> int:
    """What a loss keeps for its backward pass."""
    total = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model.loss(batch, generator=torch.Generator().manual_seed(0))
    return total


@pytest.mark.parametrize(
    ("family", "attention"), [("smolvlm", "cross"), ("smolvlm", "joint"), ("gemma3", "joint")]
)
def test_a_transformers_backbone_computes_again_too(family: str, attention: str, tmp_path: Path):
    """Hidden states for a head that reads them, keys and values for one that attends to them."""
    pytest.importorskip("transformers")
    from tests.core.models.vla.tiny import batch, head, loss, vla_policy, write_backbone

    place = write_backbone(tmp_path, family)
    found: list[tuple[torch.Tensor, dict[str, torch.Tensor], int]] = []
    for again in (False, True):
        policy = vla_policy(place, head=head("flow", attention=attention))
        policy.model.train()
        given = batch(policy)
        if again:
            assert recompute_activations(policy.model.backbone) > 2
        value = loss(policy, given)
        value.backward()
        grads = {n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None}
        found.append((value, grads, kept_bytes(policy.model, given)))
    (kept, grads, most), (computed, same, fewer) = found
    assert torch.equal(kept, computed)
    assert any(name.startswith("backbone.") for name in grads)
    assert grads.keys() == same.keys()
    for name, value in grads.items():
        torch.testing.assert_close(same[name], value, atol=1e-7, rtol=1e-5)
    assert fewer < 0.7 * most


def test_half_precision_reaches_a_transformers_backbone(tmp_path: Path):
    pytest.importorskip("transformers")
    from tests.core.models.vla.tiny import batch, loss, vla_policy, write_backbone

    policy = vla_policy(write_backbone(tmp_path, "smolvlm"))
    recompute_activations(policy.model)
    kinds: dict[str, torch.dtype] = {}
    for name, layer in policy.model.backbone.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(
                lambda _, __, output, name=name: kinds.update({name: output.dtype})
            )
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(policy, batch(policy))
        value.backward()
    assert kinds
    assert set(kinds.values()) == {torch.bfloat16}
    grads = [p.grad for p in policy.model.parameters() if p.grad is not None]
    assert all(grad.dtype == torch.float32 for grad in grads)


def test_eight_bit_states_learn(tmp_path: Path):
    config = dataclasses.replace(CONFIG, optimizer="adamw_8bit", steps=60, batch_size=8)
    run, _ = trainer(tmp_path, config)
    points: list[float] = []
    run.run(report=lambda point, _: points.append(point.loss))
    assert points[-1] < 0.9 * points[0]
    states = run._optimizer.state.values()
    assert any(state["state1"].dtype == torch.uint8 for state in states)


def test_a_batch_must_be_divisible_by_its_parts():
    with pytest.raises(DatasetError, match="cannot be done in 3 parts"):
        dataclasses.replace(CONFIG, accumulate=3)


def test_a_run_with_eight_bit_states_resumes_exactly(tmp_path: Path, monkeypatch):
    config = dataclasses.replace(CONFIG, optimizer="adamw_8bit")
    whole, straight = trainer(tmp_path / "straight", config)
    whole.run()
    broken, _ = trainer(tmp_path / "resumed", config)
    step = Trainer._step

    def dying(self: Trainer, number: int, batch: object) -> float:
        if number == 5:
            raise KeyboardInterrupt
        return step(self, number, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(KeyboardInterrupt):
            broken.run()
    again, resumed = trainer(tmp_path / "resumed", config)
    again.run()
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_learning_rate_warms_up_and_ends_low():
    config = TrainConfig(steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.1)
    assert learning_rate(0, config=config) == pytest.approx(0.1)
    assert learning_rate(10, config=config) == pytest.approx(1.0)
    assert learning_rate(100, config=config) == pytest.approx(0.1)
