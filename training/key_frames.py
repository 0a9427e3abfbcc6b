"""The poses at which the gripper is next used, for every step of a cache.

Shapes: b batch, k joints of all key poses.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.cache import Cache

# Of the gripper's range: more from one step to the next is a use of it.
_GRIPPER_STEP = 0.3
# [rad or m]; a joint that hardly ever moves would be blown up.
_SCALE_FLOOR = 0.05


class KeyPoses:
    """The target of every step of a cache: joints at its key poses, as seen from the step's own.

    Args:
        frames: Those of the training split, for the scale.
        joints: So many columns of states and labels come before the gripper's.
        has_gripper: Whether there is one.
        count: So many key poses of each step, one after the other.

    Attributes:
        width: Numbers per step.
        before_use: True for the steps before the gripper's first use in their episode, bool [N];
            none of an episode that never uses it, but all where no episode does.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        frames: NDArray[np.int64],
        joints: int,
        has_gripper: bool,
        count: int = 1,
    ) -> None:
        self.width = count * joints
        label = np.asarray(cache.label)
        used = np.zeros(0, np.int64)
        if has_gripper:
            opening = label[:, joints]
            least = _GRIPPER_STEP * np.ptp(opening)
            used = np.flatnonzero(np.abs(np.diff(opening)) > least) + 1
        last = np.asarray(cache.episode_end) - 1
        following = key_frames(used, last=last)
        first = following[np.asarray(cache.episode_start)]
        self.before_use = (following == first) & (np.isin(first, used) | (len(used) == 0))
        keys = [following]
        while len(keys) < count:
            keys.append(following[keys[-1]])
        state = np.asarray(cache.state)[:, :joints]
        motion = np.concatenate([label[key, :joints] - state for key in keys], axis=1)
        scale = np.maximum(motion[frames].std(axis=0), _SCALE_FLOOR)
        self._targets = torch.from_numpy((motion / scale).astype(np.float32))

    def __getitem__(self, frames: NDArray[np.int64]) -> Tensor:
        """Targets [b, k] of frames [b], in standard deviations."""
        return self._targets[torch.from_numpy(frames)]


def key_frames(used: NDArray[np.int64], *, last: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first frame after each at which the gripper is used, or its episode's last one.

    Args:
        used: Frames at which it is, ascending, of all episodes.
        last: The last frame of each frame's episode [N].
    """
    frames = np.arange(len(last))
    after = np.searchsorted(used, frames, side="right")
    following = np.append(used, len(last))[after]
    return np.minimum(following, last)
