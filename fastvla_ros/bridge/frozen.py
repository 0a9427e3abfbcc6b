"""Finds cameras that send the same picture again and again under new stamps."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A picture of a robot that moved by this much is never the same, byte for byte [rad or m].
MOTION_THRESHOLD = 0.1


@dataclass(slots=True)
class _View:
    """One picture, the stamp it was last seen under, and where the arm was at first.

    Two joint states in a row must agree on where that was: a single one may be wrong, and a robot
    at rest has no other picture to correct it.
    """

    image: NDArray[Any]
    newest_ns: int
    joints: NDArray[np.float32] | None
    agreed: bool = False
    moved_at_ns: int | None = None


class FrozenCameras:
    """Compares each picture with the one before it.

    Equal bytes alone prove nothing: a simulated camera draws a robot at rest the same every
    time. A camera is frozen when its picture stays equal while the arm is `MOTION_THRESHOLD` away
    from where it was.

    Args:
        joints: How many leading columns of the state are arm joints (a gripper may be hidden).
    """

    def __init__(self, *, joints: int) -> None:
        self._joints = joints
        self._views: dict[str, _View] = {}
        self._latest: NDArray[np.float32] | None = None
        self._lock = threading.Lock()

    def on_state(self, state: NDArray[np.float32]) -> None:
        """Take the measured state, float32 [S]."""
        joints = state[: self._joints]
        with self._lock:
            self._latest = joints
            for view in self._views.values():
                reference = joints if view.joints is None else view.joints
                moved = float(np.abs(joints - reference).max()) >= MOTION_THRESHOLD
                if not view.agreed:
                    view.agreed = view.joints is not None and not moved
                    view.joints = joints
                elif not moved:
                    # Back where the picture was taken, or never away: one joint state was wrong.
                    view.moved_at_ns = None
                elif view.moved_at_ns is None:
                    view.moved_at_ns = view.newest_ns

    def on_image(self, camera: str, *, image: NDArray[Any], stamp_ns: int) -> None:
        """Take a picture, uint8 [H, W, 3] or float32 [H, W]."""
        with self._lock:
            view = self._views.get(camera)
            later = view is not None and stamp_ns >= view.newest_ns
            if view is not None and later and np.array_equal(view.image, image):
                view.newest_ns = stamp_ns
            else:
                self._views[camera] = _View(image, stamp_ns, self._latest)

    def frozen_for_ns(self, camera: str) -> int:
        """How long the picture has stood still after the arm moved; 0 when it has not."""
        with self._lock:
            view = self._views.get(camera)
            if view is None or view.moved_at_ns is None:
                return 0
            return view.newest_ns - view.moved_at_ns
