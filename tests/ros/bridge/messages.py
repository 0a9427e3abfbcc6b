"""Plain objects with the fields of ROS messages; the bridge reads fields, not classes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from fastvla_core.robot.contract_file import load_contract

CONTRACT = load_contract("tabletop")
MS = 1_000_000


def header(stamp_ns: int) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return SimpleNamespace(stamp=stamp, frame_id="")


def picture(value: int = 0, *, size: int = 96) -> np.ndarray:
    return np.random.default_rng(value).integers(0, 256, (size, size, 3), np.uint8)


def image(pixels: np.ndarray, *, stamp_ns: int, encoding: str = "rgb8") -> SimpleNamespace:
    return SimpleNamespace(
        header=header(stamp_ns),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.shape[1] * pixels.itemsize * int(np.prod(pixels.shape[2:])),
        data=pixels.tobytes(),
    )


def joint_state(state, *, stamp_ns: int, names=CONTRACT.state_names) -> SimpleNamespace:
    return SimpleNamespace(header=header(stamp_ns), name=list(names), position=list(state))
