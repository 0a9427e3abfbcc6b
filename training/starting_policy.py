"""What a run starts from: a checkpoint, one that gets another robot, or a new policy."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from fastvla_core.errors import CheckpointError, DatasetError
from fastvla_core.models.hub import find_checkpoint
from fastvla_core.models.lerobot.stored import settings_folder
from fastvla_core.models.loading import load_config
from fastvla_core.models.registry import POLICIES
from fastvla_core.models.statistics import Statistics, identity_statistics, mean_std
from fastvla_core.models.weightless import weightless
from fastvla_core.plain_data import PlainDataError, updated
from fastvla_core.policy import FastVLA, policy_config
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot_adaptation import adapted_config, adapted_policy, is_adaptable
from fastvla_core.sim.instructions import TRAINING_TEMPLATES
from fastvla_core.sim.tasks import TASKS
from training.cache import Cache
from training.camera_dropout import hiding_chances
from training.dataset import StepDataset
from training.recipe import Recipe, TrainConfig

# A joint that only ever trembles must not be blown up: a bump of 0.07 rad on the table-top's fourth
# joint was 77 standard deviations, and its square outweighed everything else in a batch.
JOINT_STD_FLOOR = 0.02
GRIPPER_STD_FLOOR = 0.001


def starting_point(recipe: Recipe, contract: RobotContract) -> Any:
    """What can be said before any recording is read: the policy, or the config of one to be.

    Raises:
        CheckpointError: the policy to start from cannot be loaded or cannot be trained.
        DatasetError: the recipe's rate is not the policy's, or its options do not go together.
    """
    return _new_config(recipe, contract) if recipe.new else _pretrained(recipe, contract)


def starting_policy(
    start: Any, recipe: Recipe, *, contract: RobotContract, cache: Cache
) -> FastVLA:
    """The policy of a `starting_point`, with the statistics and words of the recordings."""
    if isinstance(start, FastVLA):
        return start
    if is_adaptable(start):
        return _adapted_policy(recipe, contract=contract, config=start, cache=cache)
    return _new_policy(start, contract=contract, cache=cache, training=recipe.training)


def with_options(config: Any, recipe: Recipe) -> Any:
    """A preset's config with the recipe's `policy_options`.

    Raises:
        DatasetError: the policy has no such option, or not with that value.
    """
    try:
        return updated(config, recipe.policy_options, where="policy_options")
    except PlainDataError as error:
        raise DatasetError(
            f"recipe '{recipe.name}': {error}", mend="see docs/policies for the policy's options"
        ) from error


def _pretrained(recipe: Recipe, contract: RobotContract) -> Any:
    """The policy to start from; the config alone of one that is to be adapted to the robot."""
    folder = find_checkpoint(recipe.policy)
    family, config = load_config(folder)
    if is_adaptable(config):
        bound = adapted_config(
            config.raw,
            family=family,
            folder=settings_folder(folder),
            contract=contract,
            dt_s=1.0 / recipe.rate_hz,
        )
        # Of no robot yet, until there are statistics of its recordings.
        return dataclasses.replace(bound, binding=config.binding)
    policy = FastVLA.from_pretrained(recipe.policy, contract=contract)
    if policy.quantization is not None:
        raise CheckpointError(
            f"{recipe.policy} is quantised ({policy.quantization}): packed weights do not learn",
            mend="start from the checkpoint at full precision, and quantise the result",
        )
    if abs(policy.config.action_dt_s * recipe.rate_hz - 1.0) > 1e-6:
        raise DatasetError(
            f"recipe '{recipe.name}' cuts recordings at {recipe.rate_hz:g} Hz, {recipe.policy} "
            f"acts at {1.0 / policy.config.action_dt_s:g} Hz",
            mend=f"set `rate_hz: {1.0 / policy.config.action_dt_s:g}` in the recipe",
        )
    changes: dict[str, Any] = {}
    if steps := recipe.training.max_prefix_steps:
        changes["max_prefix_steps"] = steps
    # A config in another tool's layout has no place for it: there it is said when loading.
    if (pruning := recipe.training.pruning) and hasattr(policy.config, "vision_tokens"):
        changes["vision_tokens"] = pruning.vision_tokens
    return policy.reconfigured(**changes) if changes else policy


def _adapted_policy(
    recipe: Recipe, *, contract: RobotContract, config: Any, cache: Cache
) -> FastVLA:
    """A checkpoint without a robot, with the cameras, columns and statistics of the recordings."""
    dataset = StepDataset(
        cache,
        cameras=tuple(camera.name for camera in contract.policy_cameras),
        chunk_size=config.chunk_size,
        validation=recipe.training.validation,
    )
    state, targets = dataset.training_targets()
    return adapted_policy(
        recipe.policy,
        contract=contract,
        dt_s=1.0 / recipe.rate_hz,
        state_ns=state,
        actions_nta=targets,
        floor_a=_std_floor(contract),
    )


def _std_floor(contract: RobotContract) -> torch.Tensor:
    floor = torch.full((len(contract.action_names),), JOINT_STD_FLOOR)
    if contract.gripper is not None:
        floor[-1] = GRIPPER_STD_FLOOR
    return floor


def _new_config(recipe: Recipe, contract: RobotContract) -> Any:
    cameras = tuple(c.name for c in contract.policy_cameras)
    # Camera dropout teaches the policy to do without any one of its cameras.
    chances = hiding_chances(recipe.training.camera_dropout, cameras)
    others: dict[str, Any] = {"optional_cameras": cameras} if chances.any() else {}
    if steps := recipe.training.max_prefix_steps:
        others["max_prefix_steps"] = steps
    if pruning := recipe.training.pruning:
        others["vision_tokens"] = pruning.vision_tokens
    config = policy_config(
        recipe.policy, contract=contract, action_dt_s=1.0 / recipe.rate_hz, **others
    )
    config = with_options(config, recipe)
    # Parts that do not go together show when they are put together.
    with weightless():
        POLICIES.load(config.policy_type).model(config)
    return config


def _new_policy(
    config: Any, *, contract: RobotContract, cache: Cache, training: TrainConfig
) -> FastVLA:
    texts = [*cache.instructions]
    if training.reword:
        # A word that only a redrawn sentence has would fall to its letters.
        known = {word for text in texts for word in text.lower().split()}
        drawn = [t.format(target="", reference="") for k in TASKS for t in TRAINING_TEMPLATES[k]]
        texts += [text for text in drawn if not known.issuperset(text.split())]
    family = POLICIES.load(config.policy_type)
    tokenizer = family.new_tokenizer(config, texts)
    neutral = identity_statistics(
        state=len(config.state_names), steps=config.chunk_size, action=len(config.action_names)
    )
    draft = family.processor(config, statistics=neutral, tokenizer=tokenizer)
    dataset = StepDataset(
        cache,
        cameras=config.cameras,
        chunk_size=config.chunk_size,
        validation=training.validation,
    )
    state, targets = dataset.training_targets()
    floor = _std_floor(contract)
    statistics = Statistics(
        state=mean_std(state, floor=floor),
        action=mean_std(draft.relative(targets, state), floor=floor),
    )
    return FastVLA.from_config(
        config, statistics=statistics, tokenizer=tokenizer, seed=training.seed
    )
