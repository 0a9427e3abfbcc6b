"""Between the types of `fastvla_core` and the messages of `policy.proto`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core import errors
from fastvla_core.errors import FastVLAError, ObservationError, PolicyError, RemoteError
from fastvla_core.remote import schema
from fastvla_core.robot.decode import decode_compressed
from fastvla_core.types import ActionChunk, ChunkPrefix, Conditioning, Observation

_DEPTH = np.dtype("<f4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a server serves.

    Attributes:
        version: Of its package.
        checkpoint: As it was told to load it.
        policy_id: Digest of the checkpoint's files and its quantization.
        quantization: "nf4", "int8", or "" for the checkpoint's own precision.
        contract: The robot contract that the policy was trained for, as plain data.
        conditionings: How the policy can continue a plan.
        history_s: How long before an observation the earlier ones are that the policy reads [s].
    """

    version: str
    checkpoint: str
    policy_id: str
    quantization: str
    device: str
    contract: Mapping[str, Any] | None
    conditionings: tuple[Conditioning, ...] = ()
    history_s: tuple[float, ...] = ()


def from_description(description: Description) -> Any:
    """A `Description` message."""
    contract = description.contract
    return schema.message("Description")(
        version=description.version,
        checkpoint=description.checkpoint,
        policy_id=description.policy_id,
        quantization=description.quantization,
        device=description.device,
        contract_json=json.dumps(contract) if contract is not None else "",
        conditionings=description.conditionings,
        history_s=description.history_s,
    )


def to_description(message: Any) -> Description:
    """What a `Description` message says."""
    text = message.contract_json
    try:
        contract = json.loads(text) if text else None
    except ValueError as error:
        raise RemoteError(f"the server's robot contract is no JSON: {error}") from error
    return Description(
        version=message.version,
        checkpoint=message.checkpoint,
        policy_id=message.policy_id,
        quantization=message.quantization,
        device=message.device,
        contract=contract,
        conditionings=tuple(message.conditionings),
        history_s=tuple(message.history_s),
    )


def from_observation(observation: Observation, *, jpeg_quality: int = 0) -> Any:
    """An `Observation` message.

    Args:
        jpeg_quality: 1 to 100 compresses the images, with a loss; 0 sends their very bytes.
    """
    return schema.message("Observation")(
        stamp_ns=observation.stamp_ns,
        task=observation.task,
        images=[
            _from_image(camera, image, jpeg_quality) for camera, image in observation.images.items()
        ],
        state=observation.state.tolist(),
        oldest_age_ns=observation.oldest_age_ns,
        camera_skew_ns=observation.camera_skew_ns,
        depths=[_from_depth(camera, depth) for camera, depth in observation.depths.items()],
        earlier=[from_observation(past, jpeg_quality=jpeg_quality) for past in observation.earlier],
    )


def to_observation(message: Any) -> Observation:
    """The observation in a message; raw images are read-only views of it.

    Raises:
        ObservationError: an image's data does not fit its size, or a value is not finite.
        MessageError: a JPEG cannot be read.
    """
    return Observation(
        stamp_ns=message.stamp_ns,
        task=message.task,
        images={image.camera: _to_image(image) for image in message.images},
        state=np.asarray(message.state, np.float32),
        oldest_age_ns=message.oldest_age_ns,
        camera_skew_ns=message.camera_skew_ns,
        depths={depth.camera: _to_depth(depth) for depth in message.depths},
        earlier=tuple(map(to_observation, message.earlier)),
    )


def from_prefix(prefix: ChunkPrefix | None) -> Any:
    """A `Prefix` message; None for none."""
    if prefix is None:
        return None
    return schema.message("Prefix")(
        names=prefix.names,
        rows=len(prefix.positions),
        positions=prefix.positions.ravel().tolist(),
        frozen=prefix.frozen,
        conditioning=prefix.conditioning,
    )


def to_prefix(message: Any) -> ChunkPrefix:
    """The prefix in a message.

    Raises:
        PolicyError: it is malformed.
    """
    return ChunkPrefix(
        names=tuple(message.names),
        positions=_table(message),
        frozen=message.frozen,
        conditioning=message.conditioning,
    )


def from_chunk(chunk: ActionChunk) -> Any:
    """An `ActionChunk` message."""
    return schema.message("ActionChunk")(
        stamp_ns=chunk.stamp_ns,
        names=chunk.names,
        dt_s=chunk.dt_s,
        rows=len(chunk.positions),
        positions=chunk.positions.ravel().tolist(),
    )


def to_chunk(message: Any, *, chunk_id: int) -> ActionChunk:
    """The chunk in a message; its number is the receiver's.

    Raises:
        PolicyError: a value is not finite, or there are more or fewer than rows and names.
    """
    return ActionChunk(
        stamp_ns=message.stamp_ns,
        chunk_id=chunk_id,
        names=tuple(message.names),
        dt_s=message.dt_s,
        positions=_table(message),
    )


def from_error(error: BaseException) -> Any:
    """A `Problem` message; an error that nobody raised on purpose becomes a RemoteError."""
    kind = schema.message("Problem")
    if isinstance(error, FastVLAError):
        return kind(kind=type(error).__name__, message=error.message, mend=error.mend)
    return kind(
        kind=RemoteError.__name__,
        message=f"{type(error).__name__}: {error}",
        mend="the server's log says where",
    )


def to_error(message: Any, *, where: str) -> FastVLAError:
    """The error in a `Problem` message, of the same class as at the server."""
    kind = getattr(errors, message.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, FastVLAError)):
        kind = RemoteError
    return kind(f"{where}: {message.message}", mend=message.mend)


def _from_image(camera: str, image: NDArray[np.uint8], jpeg_quality: int) -> Any:
    kind = schema.message("Image")
    height, width = image.shape[:2]
    if not jpeg_quality:
        return kind(
            camera=camera, height=height, width=width, encoding=kind.RGB8, data=image.tobytes()
        )
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    return kind(camera=camera, height=height, width=width, encoding=kind.JPEG, data=data.tobytes())


def _to_image(message: Any) -> NDArray[np.uint8]:
    shape = (message.height, message.width, 3)
    if message.encoding == message.JPEG:
        image = decode_compressed(message.data, format="jpeg", where=f"camera '{message.camera}'")
        if image.shape != shape:
            raise ObservationError(
                f"camera '{message.camera}': a JPEG of {image.shape}, announced as {shape}"
            )
        return image
    if message.encoding != message.RGB8 or len(message.data) != shape[0] * shape[1] * 3:
        raise ObservationError(
            f"camera '{message.camera}': {len(message.data)} bytes of encoding "
            f"{message.encoding} for {shape}"
        )
    return np.frombuffer(message.data, np.uint8).reshape(shape)


def _from_depth(camera: str, depth: NDArray[np.float32]) -> Any:
    height, width = depth.shape
    data = depth.astype(_DEPTH).tobytes()
    return schema.message("Depth")(camera=camera, height=height, width=width, data=data)


def _to_depth(message: Any) -> NDArray[np.float32]:
    if len(message.data) != message.height * message.width * _DEPTH.itemsize:
        raise ObservationError(
            f"depth camera '{message.camera}': {len(message.data)} bytes for "
            f"{(message.height, message.width)}"
        )
    depth = np.frombuffer(message.data, _DEPTH).reshape(message.height, message.width)
    return depth.astype(np.float32, copy=False)


def _table(message: Any) -> NDArray[np.float64]:
    positions = np.asarray(message.positions, np.float64)
    shape = (message.rows, len(message.names))
    if positions.size != shape[0] * shape[1]:
        raise PolicyError(f"{positions.size} values came for {shape[0]} rows of {shape[1]}")
    return positions.reshape(shape)
