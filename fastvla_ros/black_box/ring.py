"""The last seconds of every stream in memory, within a budget of bytes."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

from fastvla_ros.black_box.slabs import Slabs
from fastvla_ros.recording.streams import Stream

# What Python needs for a message beside its bytes.
_OVERHEAD_BYTES = 300
# Everything but pictures gets this share: commands and joints of half a minute are small.
_SMALL_SHARE = 1 / 8
_DENSE_SHARE = 1 / 2
# With twice as many pictures it would still fit.
_ROOMY_SHARE = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One serialised message.

    Attributes:
        stamp_ns: Time of receipt on the ROS clock, which may jump.
        steady_ns: Time of receipt on the clock that does not.
        latched_ns: When it really came, where it stands for something older than the ring.
    """

    stream: Stream
    topic: str
    data: bytes | memoryview
    stamp_ns: int
    steady_ns: int
    latched_ns: int | None = None

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return len(self.data) + _OVERHEAD_BYTES


class _Queue:
    """Messages in order of receipt, and how large they are together."""

    def __init__(self) -> None:
        self.messages: deque[Recorded] = deque()
        self.size = 0

    def push(self, message: Recorded) -> None:
        self.messages.append(message)
        self.size += message.size

    def pop(self) -> Recorded:
        message = self.messages.popleft()
        self.size -= message.size
        return message

    def drop_before(self, steady_ns: int) -> None:
        while self.messages and self.messages[0].steady_ns < steady_ns:
            self.pop()


class _PictureQueue(_Queue):
    """As the other, with memory of its own for the bytes."""

    def __init__(self, slabs: Slabs) -> None:
        super().__init__()
        self._slabs = slabs

    def push(self, message: Recorded) -> None:
        super().push(replace(message, data=self._slabs.copy(message.data)))


class ThinningBuffer:
    """The last pictures of one camera: the newest all, the older ones thinned until they fit.

    A budget that holds only three seconds of raw pictures would lose what led to the end; so what
    leaves the dense part goes on to a sparse one, which keeps every second, fourth, ... picture.

    Attributes:
        left_out: Pictures that were thinned out so far.
    """

    def __init__(self, *, duration_ns: int, max_bytes: int) -> None:
        self.left_out = 0
        self._duration_ns = duration_ns
        self._dense_bytes = round(max_bytes * _DENSE_SHARE)
        self._sparse_bytes = max_bytes - self._dense_bytes
        self._dense_slabs, self._sparse_slabs = Slabs(), Slabs()
        self._stride, self._turn = 1, 0
        self.clear()

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return self._dense.size + self._sparse.size

    def add(self, message: Recorded) -> None:
        """Take the newest picture."""
        self._dense.push(message)
        oldest_ns = message.steady_ns - self._duration_ns
        self._dense.drop_before(oldest_ns)
        self._sparse.drop_before(oldest_ns)
        while self._dense.size > self._dense_bytes:
            self._hand_on(self._dense.pop())
        if self._stride > 1 and self._sparse.size < _ROOMY_SHARE * self._sparse_bytes:
            self._stride //= 2

    def messages(self) -> list[Recorded]:
        """What is there, oldest first."""
        return [*self._sparse.messages, *self._dense.messages]

    def clear(self) -> None:
        """Forget everything."""
        self._dense = _PictureQueue(self._dense_slabs)
        self._sparse = _PictureQueue(self._sparse_slabs)

    def _hand_on(self, message: Recorded) -> None:
        self._turn = (self._turn + 1) % self._stride
        if self._turn:
            self.left_out += 1
            return
        self._sparse.push(message)
        if self._sparse.size > self._sparse_bytes:
            kept = list(self._sparse.messages)[::2]
            self.left_out += len(self._sparse.messages) - len(kept)
            # Copied once more: a picture that stays must not keep the memory of those that went.
            self._sparse = _PictureQueue(self._sparse_slabs)
            for picture in kept:
                self._sparse.push(picture)
            self._stride *= 2
        # A picture that is larger than the budget alone cannot be kept.
        while self._sparse.size > self._sparse_bytes:
            self._sparse.pop()


class Ring:
    """Everything that came in during the last `seconds`; safe to call from several threads.

    Latched messages are kept until a newer one comes, however old they are.

    Args:
        seconds: How far it reaches back.
        max_bytes: Memory for it.
        cameras: How many share the memory for pictures.
    """

    def __init__(self, *, seconds: float, max_bytes: int, cameras: int) -> None:
        self._duration_ns = round(seconds * 1e9)
        self._small_bytes = round(max_bytes * (_SMALL_SHARE if cameras else 1))
        self._camera_bytes = (max_bytes - self._small_bytes) // max(cameras, 1)
        self._small = _Queue()
        self._cameras: dict[str, ThinningBuffer] = {}
        self._latched: dict[str, Recorded] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of memory."""
        with self._lock:
            return self._small.size + sum(camera.size for camera in self._cameras.values())

    @property
    def left_out(self) -> dict[str, int]:
        """Pictures that were thinned out since the start, by camera."""
        with self._lock:
            return {name: camera.left_out for name, camera in self._cameras.items()}

    def add(self, message: Recorded) -> None:
        """Take the newest message of a stream."""
        with self._lock:
            if message.stream.is_camera:
                self._camera(message.stream.name).add(message)
                return
            if message.stream.latched:
                self._latched[message.topic] = message
            self._small.push(message)
            self._small.drop_before(message.steady_ns - self._duration_ns)
            while self._small.size > self._small_bytes:
                self._small.pop()

    def clear(self) -> None:
        """Forget all but what is latched; after a jump of the ROS clock nothing would fit."""
        with self._lock:
            self._small = _Queue()
            for camera in self._cameras.values():
                camera.clear()

    def snapshot(self, *, steady_ns: int) -> list[Recorded]:
        """What there is of the last seconds before `steady_ns`, by time of receipt.

        A latched message from before stands at the start, with its own time in `latched_ns`.
        """
        oldest_ns = steady_ns - self._duration_ns
        with self._lock:
            cameras = [m for camera in self._cameras.values() for m in camera.messages()]
            recent = [m for m in (*self._small.messages, *cameras) if m.steady_ns >= oldest_ns]
            present = {id(message) for message in recent}
            latched = [m for m in self._latched.values() if id(m) not in present]
        recent.sort(key=lambda message: message.stamp_ns)
        start_ns = recent[0].stamp_ns if recent else None
        older = [
            message
            if start_ns is None
            else replace(message, stamp_ns=start_ns, latched_ns=message.stamp_ns)
            for message in latched
        ]
        return [*older, *recent]

    def _camera(self, name: str) -> ThinningBuffer:
        if name not in self._cameras:
            self._cameras[name] = ThinningBuffer(
                duration_ns=self._duration_ns, max_bytes=self._camera_bytes
            )
        return self._cameras[name]
