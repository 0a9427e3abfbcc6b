"""Pictures of a recording that are unpacked only when a step looks at them.

A camera gives three pictures per step of a policy; unpacking JPEG is most of the work. Where a
small picture is wanted, no large one is made first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import BagError, MessageError
from fastvla_core.robot.contract import CameraSpec
from fastvla_core.robot.decode import check_camera, decode_camera
from fastvla_core.robot.encodings import LAYOUTS
from fastvla_core.robot.packed import JPEG_START, Size, is_cut, unpack_color_jpeg
from training.bags import messages

# libjpeg's own smaller sizes that processors have instructions for, and none.
_DIVISORS = (1, 2, 4, 8)


def whole_size(camera: CameraSpec) -> Size:
    """A camera's own height and width, in pixels."""
    return camera.height, camera.width


@dataclass(frozen=True, slots=True)
class PendingFrame:
    """One message of a camera."""

    camera: CameraSpec
    message: Any

    def pixels(self, *, size: Size | None = None) -> NDArray[Any]:
        """As `decode_camera`, or a smaller picture of that size; raises MessageError."""
        whole = whole_size(self.camera)
        if size is None or size == whole:
            return decode_camera(self.camera, self.message)
        divisor = max(d for d in _DIVISORS if whole[0] // d >= size[0] and whole[1] // d >= size[1])
        file, smaller = self.jpeg() if divisor > 1 else None, None
        if file is not None:
            smaller = unpack_color_jpeg(file, size=whole, divisor=divisor)
        if smaller is None:
            smaller = decode_camera(self.camera, self.message)
        return scaled_down(smaller, size=size)

    def jpeg(self) -> NDArray[np.uint8] | None:
        """The JPEG file that gives `pixels` whoever reads it, where the message holds one."""
        if self.camera.kind != "color" or not hasattr(self.message, "format"):
            return None
        data = np.asarray(self.message.data)
        original, _, codec = self.message.format.partition(";")
        # Only the message says what these colours mean.
        told = original.startswith("bayer_") or "compressed rgb" in codec
        return None if told or bytes(data[:2]) != JPEG_START else data


def check_message(camera: CameraSpec, message: Any, *, type_name: str) -> None:
    """Refuse at once what would be refused live, as far as that shows without unpacking.

    Raises:
        MessageError: another size or encoding than the contract's, or data that is cut short.
        BagError: the topic holds no images.
    """
    if type_name not in (messages.IMAGE, messages.COMPRESSED_IMAGE):
        raise BagError(
            f"camera '{camera.name}': '{camera.topic}' holds {type_name}",
            mend=f"record {messages.IMAGE} or {messages.COMPRESSED_IMAGE}",
        )
    if type_name == messages.IMAGE:
        check_camera(camera, width=message.width, height=message.height, encoding=message.encoding)
        layout = LAYOUTS.get(message.encoding)
        cut = layout is not None and len(message.data) != (
            message.step * (message.height * layout.half_rows // 2)
        )
    else:
        data = np.asarray(message.data)
        cut = not data.size or (camera.kind == "color" and is_cut(data))
    if cut:
        # Unpacking says what is wrong with it.
        decode_camera(camera, message)
        raise MessageError(f"camera '{camera.name}': a picture is cut short")


def scaled_down(image: NDArray[np.uint8], *, size: Size) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] as a smaller picture, without the patterns of left-out pixels.

    Halving averages four pixels each and is fast; what is left is less than a half, for which the
    four neighbours are enough. One step by area took eight times as long.
    """
    height, width = size
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
