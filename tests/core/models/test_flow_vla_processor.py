from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvla_core.errors import CheckpointError, ObservationError
from fastvla_core.models.policies.flow_vla.processor import FlowVLAProcessor
from fastvla_core.models.policies.flow_vla.processor_files import load_processor, save_processor
from fastvla_core.models.tokenizer import InstructionTokenizer, train_tokenizer
from fastvla_core.types import Observation

from .tiny import TEXTS, observation, tiny_policy

CPU = torch.device("cpu")
STATE_FILE = "policy_preprocessor_step_5_normalizer_processor.safetensors"
ACTION_FILE = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"


@pytest.fixture
def processor() -> FlowVLAProcessor:
    return tiny_policy().processor


def test_joints_are_relative_to_the_state_and_the_gripper_is_not(processor: FlowVLAProcessor):
    state = torch.tensor([[1.0, 2.0, 3.0]])
    targets = torch.full((1, 4, 3), 5.0)
    assert processor.relative(targets, state)[0, 2].tolist() == [4.0, 3.0, 5.0]
    assert torch.equal(processor.absolute(processor.relative(targets, state), state), targets)


def test_training_targets_come_back_as_the_same_absolute_targets(processor: FlowVLAProcessor):
    observations = [observation(i) for i in range(2)]
    targets = torch.randn(2, 4, 3)
    batch = processor.training_batch(
        images={n: torch.zeros(2, 16, 24, 3, dtype=torch.uint8) for n in ("front", "wrist")},
        image_mask=torch.ones(2, 2, dtype=torch.bool),
        state=torch.from_numpy(np.stack([o.state for o in observations])),
        actions=targets,
        tasks=list(TEXTS),
        device=CPU,
    )
    found = processor.targets(batch["action"], observations)
    np.testing.assert_allclose(found, targets.numpy(), atol=1e-5)


def test_training_and_serving_make_the_same_batch(processor: FlowVLAProcessor):
    observations = [observation(i, task=TEXTS[i]) for i in range(2)]
    served = processor.observation_batch(observations, device=CPU)
    trained = processor.training_batch(
        images={
            n: torch.stack([torch.from_numpy(o.images[n]) for o in observations])
            for n in ("front", "wrist")
        },
        image_mask=torch.ones(2, 2, dtype=torch.bool),
        state=torch.from_numpy(np.stack([o.state for o in observations])),
        actions=torch.zeros(2, 4, 3),
        tasks=list(TEXTS),
        device=CPU,
    )
    trained.pop("action")
    assert served.keys() == trained.keys()
    assert all(torch.equal(served[key], trained[key]) for key in served)


def test_a_missing_optional_camera_is_masked(processor: FlowVLAProcessor):
    batch = processor.observation_batch(
        [observation(0, missing="wrist"), observation(1)], device=CPU
    )
    assert batch["image_mask"].tolist() == [[True, False], [True, True]]


def test_a_missing_required_camera_is_refused(processor: FlowVLAProcessor):
    with pytest.raises(ObservationError, match="no image of camera 'front'; got: wrist"):
        processor.observation_batch([observation(0, missing="front")], device=CPU)


def test_no_camera_at_all_is_refused_even_when_each_is_optional():
    processor = tiny_policy(optional_cameras=("front", "wrist")).processor
    blind = Observation(stamp_ns=0, task="x", images={}, state=np.zeros(3, np.float32))
    with pytest.raises(ObservationError, match="got: none"):
        processor.observation_batch([blind], device=CPU)


def test_a_state_of_another_size_is_refused(processor: FlowVLAProcessor):
    seen = observation()
    wrong = Observation(
        stamp_ns=0, task=seen.task, images=seen.images, state=np.zeros(4, np.float32)
    )
    with pytest.raises(ObservationError, match=r"got 4 values, .* 3: joint1, joint2, gripper"):
        processor.observation_batch([wrong], device=CPU)


def test_statistics_are_checkpoint_content(processor: FlowVLAProcessor, tmp_path: Path):
    save_processor(tmp_path, processor)
    steps = json.loads((tmp_path / "policy_preprocessor.json").read_text())["steps"]
    assert steps[5]["registry_name"] == "normalizer_processor"
    assert steps[5]["state_file"] == STATE_FILE
    assert load_file(tmp_path / ACTION_FILE)["action.mean"].shape == (4, 3)
    again = load_processor(tmp_path, processor.config).statistics
    assert torch.equal(again.state.std, processor.statistics.state.std)
    assert torch.equal(again.action.mean, processor.statistics.action.mean)


@pytest.mark.parametrize(
    ("file", "key"), [(STATE_FILE, "observation.state.mean"), (ACTION_FILE, "action.std")]
)
def test_missing_statistics_name_file_and_key(
    processor: FlowVLAProcessor, tmp_path: Path, file: str, key: str
):
    save_processor(tmp_path, processor)
    tensors = load_file(tmp_path / file)
    tensors[f"other.{key}"] = tensors.pop(key)
    save_file(tensors, tmp_path / file)
    with pytest.raises(CheckpointError, match=f"{file}: the statistic '{key}' is missing"):
        load_processor(tmp_path, processor.config)


def test_statistics_of_another_robot_are_refused(processor: FlowVLAProcessor, tmp_path: Path):
    save_processor(tmp_path, processor)
    tensors = load_file(tmp_path / ACTION_FILE)
    tensors["action.mean"] = torch.zeros(4, 9)
    save_file(tensors, tmp_path / ACTION_FILE)
    with pytest.raises(CheckpointError, match=r"'action\.mean' is \(4, 9\), expected \(4, 3\)"):
        load_processor(tmp_path, processor.config)


def test_a_missing_state_file_or_step_is_named(processor: FlowVLAProcessor, tmp_path: Path):
    save_processor(tmp_path, processor)
    (tmp_path / STATE_FILE).unlink()
    with pytest.raises(CheckpointError, match=f"{STATE_FILE} is missing"):
        load_processor(tmp_path, processor.config)
    (tmp_path / "policy_preprocessor.json").write_text('{"steps": []}')
    with pytest.raises(CheckpointError, match="no step 'normalizer_processor'"):
        load_processor(tmp_path, processor.config)


def test_per_dimension_action_statistics_are_read_too(processor: FlowVLAProcessor, tmp_path: Path):
    save_processor(tmp_path, processor)
    tensors = load_file(tmp_path / ACTION_FILE)
    tensors["action.mean"], tensors["action.std"] = torch.zeros(3), torch.full((3,), 2.0)
    save_file(tensors, tmp_path / ACTION_FILE)
    action = load_processor(tmp_path, processor.config).statistics.action
    assert torch.equal(action.unnormalize(torch.ones(1, 4, 3)), torch.full((1, 4, 3), 2.0))


def test_images_of_any_size_are_resized_with_padding(processor: FlowVLAProcessor):
    seen = observation()
    tall = np.full((64, 24, 3), 255, dtype=np.uint8)
    resized = Observation(
        stamp_ns=0, task=seen.task, images={**seen.images, "front": tall}, state=seen.state
    )
    front = processor.observation_batch([resized], device=CPU)["images"][0, 0]
    assert front.shape == (3, 16, 24)
    assert front[:, :, 9:15].eq(1).all()
    assert front[:, :, :9].eq(-1).all()


def test_pixels_are_scaled_to_minus_one_to_one(processor: FlowVLAProcessor):
    seen = observation()
    images = processor.observation_batch([seen], device=CPU)["images"][0]
    expected = torch.from_numpy(seen.images["wrist"]).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(images[1], expected, atol=1e-6, rtol=0)
    assert images.is_contiguous()


def test_read_only_pixels_are_accepted(processor: FlowVLAProcessor):
    seen = observation()
    seen.images["front"].flags.writeable = False
    assert processor.observation_batch([seen], device=CPU)["images"].isfinite().all()


def test_statistics_that_are_not_finite_are_refused(processor: FlowVLAProcessor, tmp_path: Path):
    save_processor(tmp_path, processor)
    tensors = load_file(tmp_path / ACTION_FILE)
    tensors["action.std"][0, 1] = float("nan")
    save_file(tensors, tmp_path / ACTION_FILE)
    with pytest.raises(CheckpointError, match=r"'action\.std' holds NaN or infinity"):
        load_processor(tmp_path, processor.config)


def test_a_tokenizer_with_more_words_than_the_policy_is_refused(
    processor: FlowVLAProcessor, tmp_path: Path
):
    save_processor(tmp_path, processor)
    other = train_tokenizer([chr(97 + i) * n for i in range(26) for n in (2, 3, 4)])
    InstructionTokenizer(other, max_length=12).save(tmp_path / "tokenizer")
    with pytest.raises(CheckpointError, match=r"tokenizer has 335 entries, .* vocabulary 300"):
        load_processor(tmp_path, processor.config)


@pytest.mark.parametrize(
    "steps",
    [
        5,
        [None],
        [{"registry_name": "normalizer_processor", "state_file": 5}],
        [{"registry_name": "normalizer_processor", "state_file": STATE_FILE}],
        [
            {"registry_name": "normalizer_processor", "state_file": STATE_FILE},
            {"registry_name": "tokenizer_processor"},
        ],
    ],
)
def test_processor_files_of_another_form_are_refused(
    processor: FlowVLAProcessor, tmp_path: Path, steps: object
):
    save_processor(tmp_path, processor)
    (tmp_path / "policy_preprocessor.json").write_text(json.dumps({"steps": steps}))
    with pytest.raises(CheckpointError, match=r"policy_preprocessor\.json: "):
        load_processor(tmp_path, processor.config)
