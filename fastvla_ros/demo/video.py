"""Writes the video while the robot moves, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import FastVLAError

Frame = NDArray[np.uint8]


class VideoWriter:
    """H.264, yuv420p; a frame lies where its time says, so that the video plays in real time.

    Args:
        path: Ends in `.mp4`; its folder exists.
        width, height: Even numbers [pixel].
        rate_hz: Frames closer together than this are left out.
    """

    def __init__(self, path: Path, *, width: int, height: int, rate_hz: int) -> None:
        self.path = path
        self.frames = 0
        self._rate_hz = rate_hz
        self._failure: Exception | None = None
        # A slow disk or processor must cost frames, not memory.
        self._queue: queue.Queue[tuple[float, Callable[[], Frame]] | None] = queue.Queue(50)
        self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
        stream = self._container.add_stream("libx264", rate=Fraction(rate_hz))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "22", "preset": "veryfast"}
        stream.codec_context.time_base = Fraction(1, rate_hz)
        stream.codec_context.thread_count = 1
        self._stream = stream
        self._thread = threading.Thread(target=self._work, name="video", daemon=True)
        self._thread.start()

    def add(self, time_s: float, make_frame: Callable[[], Frame]) -> None:
        """Queue a frame, made in the writer's thread: uint8 [height, width, 3], RGB."""
        try:
            self._queue.put_nowait((time_s, make_frame))
        except queue.Full:
            return

    def close(self) -> None:
        """Write what is queued and finish the file.

        Raises:
            FastVLAError: the video could not be written.
        """
        self._queue.put(None)
        self._thread.join()
        if self._failure is not None:
            raise FastVLAError(
                f"{self.path}: the video could not be written: {self._failure}",
                mend="check the free space and the permissions of its folder",
            ) from self._failure

    def _work(self) -> None:
        last = -1
        while (item := self._queue.get()) is not None:
            time_s, make_frame = item
            at = round(time_s * self._rate_hz)
            if at <= last or self._failure is not None:
                continue
            last = at
            try:
                self._encode(make_frame(), at)
            except Exception as error:
                self._failure = error
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except Exception as error:
            self._failure = self._failure or error

    def _encode(self, pixels: Frame, at: int) -> None:
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = at, Fraction(1, self._rate_hz)
        self._container.mux(self._stream.encode(frame))
        self.frames += 1
