"""What a checkpoint takes and gives: cameras, state and action, in LeRobot's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastvla_core.errors import CheckpointError
from fastvla_core.plain_data import PlainDataError, convert

IMAGE_PREFIX = "observation.images."
SINGLE_IMAGE_KEY = "observation.image"
STATE_KEY = "observation.state"
ACTION_KEY = "action"
# Cameras that LeRobot itself adds for models that were trained with more of them.
EMPTY_CAMERA = "empty_camera_"


def camera_name(key: str) -> str:
    """The camera of a feature key: "observation.images.top" is "top"."""
    return "image" if key == SINGLE_IMAGE_KEY else key.removeprefix(IMAGE_PREFIX)


def camera_key(name: str) -> str:
    """The usual feature key of a camera."""
    return IMAGE_PREFIX + name


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The features of a policy.

    Attributes:
        cameras: Feature keys of the cameras, in the policy's order, empty ones included.
        image_sizes: Height and width that each camera's feature names.
        state_dim, action_dim: Real dimensions, without padding.
    """

    cameras: tuple[str, ...]
    image_sizes: Mapping[str, tuple[int, int]]
    state_dim: int
    action_dim: int

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras that can exist; LeRobot's empty ones cannot."""
        names = tuple(camera_name(key) for key in self.cameras)
        return tuple(name for name in names if not name.startswith(EMPTY_CAMERA))


def read_features(data: Mapping[str, Any], *, source: str, empty_cameras: int = 0) -> Features:
    """Read `input_features` and `output_features`.

    Args:
        empty_cameras: How many cameras are appended that never give an image.
    Raises:
        CheckpointError: they are missing or not as LeRobot writes them; names source and key.
    """
    try:
        inputs = _shapes(data, "input_features")
        outputs = _shapes(data, "output_features")
    except PlainDataError as error:
        raise CheckpointError(
            f"{source}: {error}", mend="use the config.json that LeRobot saved"
        ) from error
    cameras = [k for k in inputs if k.startswith(IMAGE_PREFIX) or k == SINGLE_IMAGE_KEY]
    added = [camera_key(f"{EMPTY_CAMERA}{index}") for index in range(empty_cameras)]
    for key, shape in (("output_features.action", outputs.get(ACTION_KEY)),):
        if not shape:
            raise CheckpointError(f"{source}: '{key}' is missing", mend="is it a policy?")
    if not cameras:
        raise CheckpointError(
            f"{source}: 'input_features' has no '{IMAGE_PREFIX}*'",
            mend="name the cameras that the policy was trained with",
        )
    return Features(
        cameras=tuple(dict.fromkeys([*cameras, *added])),
        image_sizes={key: _size(inputs[key], key, source) for key in cameras},
        state_dim=inputs.get(STATE_KEY, (0,))[0],
        action_dim=outputs[ACTION_KEY][0],
    )


def _shapes(data: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    features = convert(data.get(where), Mapping[str, Any], where=where)
    return {
        key: convert(
            convert(feature, Mapping[str, Any], where=f"{where}.{key}").get("shape"),
            tuple[int, ...],
            where=f"{where}.{key}.shape",
        )
        for key, feature in features.items()
    }


def _size(shape: tuple[int, ...], key: str, source: str) -> tuple[int, int]:
    if len(shape) != 3 or shape[0] != 3:
        raise CheckpointError(
            f"{source}: '{key}' has the shape {list(shape)}, expected [3, height, width]",
            mend="convert the images to RGB and train again",
        )
    return shape[1], shape[2]
