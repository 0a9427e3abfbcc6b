"""Camera images to a GPU beside the work on the host: page-locked buffers, a stream of their own.

The lines here run on a GPU only, and were not run on one yet.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class _Staging:
    pinned: Tensor
    copied: torch.cuda.Event


class PinnedUploads:
    """Starts copies that go on while the instruction is tokenized and the state normalised.

    A page-locked buffer per camera and shape takes the image; the copy from it runs on a stream of
    its own, which the present stream waits for without blocking the host.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._staged: dict[tuple[str, torch.Size], _Staging] = {}
        self._lock = threading.Lock()

    def __call__(self, camera: str, image: Tensor) -> Tensor:
        """The image [..., H, W, C] on the device; ready for what is queued after this call."""
        with self._lock, torch.cuda.device(self._device):
            key = camera, image.shape
            if key not in self._staged:
                pinned = torch.empty(image.shape, dtype=image.dtype, pin_memory=True)
                self._staged[key] = _Staging(pinned, torch.cuda.Event())
            staged = self._staged[key]
            # The buffer must not change below a copy that still runs.
            staged.copied.synchronize()
            staged.pinned.copy_(image)
            with torch.cuda.stream(self._stream):
                uploaded = staged.pinned.to(self._device, non_blocking=True)
                staged.copied.record(self._stream)
            present = torch.cuda.current_stream()
            present.wait_event(staged.copied)
            # Its memory belongs to the other stream, which must not reuse it before it is read.
            uploaded.record_stream(present)
        return uploaded
