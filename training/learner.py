"""What is optimised: a policy's network, and what learns beside it for training alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fastvla_core.errors import DatasetError
from fastvla_core.policy import FastVLA
from training.conversation_training import CoTrained, digest_of, read_lists
from training.dataset import StepDataset
from training.insulation import insulated
from training.key_pose import WithKeyPose
from training.recipe import TrainConfig


def learner_of(
    policy: FastVLA,
    config: TrainConfig,
    *,
    dataset: StepDataset,
    head: Mapping[str, Tensor] | None = None,
) -> tuple[nn.Module, dict[str, str]]:
    """A module with the loss of a batch, and digests of what else it learns from.

    Args:
        head: Of the key poses, from a run before; None to draw a new one.

    Raises:
        DatasetError: the policy cannot learn so, or a list of conversations cannot be used.
        CheckpointError: a tokenizer is missing or damaged.
    """
    if config.insulation is not None:
        return insulated(policy, config.insulation, seed=config.seed)
    if config.key_pose is not None:
        if dataset.key_poses is None:
            raise DatasetError(
                "training.key_pose: these recordings have no key poses", mend="leave it out"
            )
        width = dataset.key_poses.width
        learner = WithKeyPose(policy.model, config.key_pose, width=width, seed=config.seed)
        if head is not None:
            learner.head.load_state_dict(dict(head))
        return learner, {}
    if config.conversations is not None:
        said = read_lists(config.conversations)
        talking = CoTrained(policy, config.conversations, conversations=said)
        return talking, {"conversations": digest_of(said)}
    return policy.model, {}
