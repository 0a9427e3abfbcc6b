"""Images and joint states that are wrong in one way or another: from a seed and a number."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastvla_core.robot.contract import RobotContract

_HUGE = 2**32 - 1
# Beyond what a camera of the contract sends; rarely, because it takes time and not cunning.
_OVERSIZED = (1920, 1080)
_ODD_TEXTS = ("", "rgb16", "RGB8", "32FC1", "bayer_rggb8", "jpeg", "\0", "\x1b[2J", "é" * 40)
_ODD_NUMBERS = (float("nan"), float("inf"), float("-inf"), 1e308, -1e39, 5e-324, 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """One message or its bytes.

    Attributes:
        stream: A camera's name, or `joint_states`.
        what: How it is wrong.
        message: To publish.
    """

    stream: str
    what: str
    message: Any


class Fuzzer:
    """Makes malformed messages for the streams of a robot.

    Args:
        seed: With a number it gives the same message again.
    """

    def __init__(self, contract: RobotContract, *, seed: int) -> None:
        self._contract, self._seed = contract, seed
        self._cameras = [camera.name for camera in contract.policy_cameras]
        self._images = _mutations(self, "_image_")
        self._joints = _mutations(self, "_joints_")

    def make(self, number: int) -> Malformed:
        """The message of this number: three in four are images, one in four is broken CDR."""
        from rclpy.serialization import serialize_message

        chance = random.Random(f"{self._seed}:{number}")
        is_image = chance.random() < 0.75
        mutations = self._images if is_image else self._joints
        stream = chance.choice(self._cameras) if is_image else "joint_states"
        message = self._good_image(stream, chance) if is_image else self._good_joints()
        if chance.random() < 0.25:
            what, data = broken_cdr(bytes(serialize_message(message)), chance)
            return Malformed(stream=stream, what=f"CDR, {what}", message=data)
        name = chance.choice(sorted(mutations))
        mutations[name](message, chance)
        return Malformed(stream=stream, what=name, message=message)

    def _good_image(self, camera: str, chance: random.Random) -> Any:
        from sensor_msgs.msg import Image

        spec = self._contract.camera(camera)
        step = 3 * spec.width
        return Image(
            height=spec.height,
            width=spec.width,
            encoding=spec.encoding,
            step=step,
            data=array("B", chance.randbytes(step * spec.height)),
        )

    def _good_joints(self) -> Any:
        from sensor_msgs.msg import JointState

        names = list(self._contract.driver_names.values())
        return JointState(name=names, position=[0.1] * len(names))

    # -- each makes a good message wrong --------------------------------------------------------

    def _image_encoding(self, message: Any, chance: random.Random) -> None:
        message.encoding = chance.choice(_ODD_TEXTS)

    def _image_endless_encoding(self, message: Any, chance: random.Random) -> None:
        message.encoding = "rgb8" * chance.randrange(1_000, 30_000)

    def _image_step(self, message: Any, chance: random.Random) -> None:
        message.step = chance.choice((0, 1, message.width, message.step - 1, _HUGE))

    def _image_short(self, message: Any, chance: random.Random) -> None:
        message.data = message.data[: chance.randrange(len(message.data))]

    def _image_long(self, message: Any, chance: random.Random) -> None:
        message.data = message.data + array("B", bytes(chance.randrange(1, 10_000)))

    def _image_empty(self, message: Any, chance: random.Random) -> None:
        message.data = array("B")
        if chance.random() < 0.5:
            message.height = message.width = message.step = 0

    def _image_height(self, message: Any, chance: random.Random) -> None:
        message.height = chance.choice((0, 1, message.height + 1, 2**31, _HUGE))

    def _image_width(self, message: Any, chance: random.Random) -> None:
        message.width = chance.choice((0, 1, message.width + 1, 2**31, _HUGE))

    def _image_oversized(self, message: Any, chance: random.Random) -> None:
        if chance.random() < 0.95:  # the size alone is a lie
            message.width, message.height = _OVERSIZED
            return
        message.width, message.height = _OVERSIZED
        message.step = 3 * message.width
        message.data = array("B", bytes(message.step * message.height))

    def _image_endianness(self, message: Any, chance: random.Random) -> None:
        message.is_bigendian = chance.randrange(1, 256)
        message.encoding = chance.choice(("rgb16", "mono16", "rgb8"))

    def _image_stamp(self, message: Any, chance: random.Random) -> None:
        _set_odd_stamp(message, chance)

    def _image_frame_id(self, message: Any, chance: random.Random) -> None:
        message.header.frame_id = chance.choice(("\n", "x" * 100_000))

    def _joints_number(self, message: Any, chance: random.Random) -> None:
        at = chance.randrange(len(message.position))
        message.position[at] = chance.choice(_ODD_NUMBERS)

    def _joints_all_nan(self, message: Any, chance: random.Random) -> None:
        message.position = [float("nan")] * len(message.position)

    def _joints_no_names(self, message: Any, chance: random.Random) -> None:
        message.name = []

    def _joints_nothing(self, message: Any, chance: random.Random) -> None:
        message.name, message.position = [], []

    def _joints_too_few(self, message: Any, chance: random.Random) -> None:
        message.position = message.position[: chance.randrange(len(message.position))]

    def _joints_too_many(self, message: Any, chance: random.Random) -> None:
        message.position = [0.0] * chance.randrange(8, 5_000)

    def _joints_twice(self, message: Any, chance: random.Random) -> None:
        message.name = [message.name[0]] * len(message.name)

    def _joints_unknown(self, message: Any, chance: random.Random) -> None:
        message.name = [f"{name}{chance.choice(_ODD_TEXTS)}_" for name in message.name]

    def _joints_empty_names(self, message: Any, chance: random.Random) -> None:
        message.name = [""] * len(message.name)

    def _joints_endless_name(self, message: Any, chance: random.Random) -> None:
        message.name = ["j" * 200_000, *message.name[1:]]

    def _joints_thousands(self, message: Any, chance: random.Random) -> None:
        count = chance.randrange(1_000, 5_000)
        message.name = [f"joint_{n}" for n in range(count)]
        message.position = [0.0] * count

    def _joints_other_lengths(self, message: Any, chance: random.Random) -> None:
        message.velocity = [float("nan")] * chance.randrange(100)
        message.effort = [1e308] * chance.randrange(100)
        message.position = message.position[:-1]

    def _joints_stamp(self, message: Any, chance: random.Random) -> None:
        _set_odd_stamp(message, chance)


def broken_cdr(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Serialised bytes that are no message of the type, or of another content: how, and them."""
    kind = chance.choice(("cut", "flipped bits", "a huge length", "header", "noise", "nothing"))
    if kind == "cut":
        return kind, data[: chance.randrange(4, min(len(data), 200))]
    if kind == "a huge length":
        # The string, array or sequence that begins there has four thousand million items.
        at = 4 * chance.randrange(3, min(len(data), 120) // 4)
        return kind, data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
    if kind == "header":
        return kind, bytes((chance.randrange(256), chance.randrange(256), 0, 0)) + data[4:]
    if kind == "noise":
        return kind, data[:4] + chance.randbytes(chance.randrange(1, 2_000))
    if kind == "nothing":
        return kind, data[:4]
    flipped = bytearray(data)
    for _ in range(chance.randrange(1, 20)):
        flipped[chance.randrange(4, min(len(data), 200))] ^= 1 << chance.randrange(8)
    return kind, bytes(flipped)


def _set_odd_stamp(message: Any, chance: random.Random) -> None:
    stamp = message.header.stamp
    stamp.sec = chance.choice((-(2**31), -1, 0, 1, 2**31 - 1))
    stamp.nanosec = chance.choice((0, 1_000_000_000, _HUGE))


def _mutations(fuzzer: Fuzzer, prefix: str) -> dict[str, Callable[[Any, random.Random], None]]:
    names = [name for name in dir(fuzzer) if name.startswith(prefix)]
    return {name.removeprefix("_").replace("_", " "): getattr(fuzzer, name) for name in names}
