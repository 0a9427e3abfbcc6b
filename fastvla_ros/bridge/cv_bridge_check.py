"""Prints the encodings for which the installed cv_bridge agrees with us; see `images`."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np

from fastvla_core.robot.decode import message_to_rgb
from fastvla_core.robot.encodings import COLOR_ENCODINGS, LAYOUTS


def agreeing_encodings() -> list[str]:
    """Try every encoding on one small image of noise, padded rows included.

    rgb8 is left out: our own view of it copies nothing.
    """
    from cv_bridge import CvBridge

    bridge = CvBridge()
    data = np.random.default_rng(0).integers(0, 256, 12 * 64, np.uint8).tobytes()
    agreeing = []
    for encoding in COLOR_ENCODINGS:
        if encoding == "rgb8":
            continue
        message = SimpleNamespace(
            data=data[: 4 * LAYOUTS[encoding].half_rows * 64],
            width=6, height=8, encoding=encoding, step=64, is_bigendian=0,
        )  # fmt: skip
        ours = message_to_rgb(message, "self-test")
        try:
            theirs = bridge.imgmsg_to_cv2(message, "rgb8")
        # cv_bridge raises its own error, TypeError, RuntimeError, ... where it does not convert.
        except Exception:
            continue
        if np.array_equal(ours, theirs):
            agreeing.append(encoding)
    return agreeing


if __name__ == "__main__":
    print(json.dumps(agreeing_encodings()))
