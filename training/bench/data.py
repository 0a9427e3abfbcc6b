"""How fast recordings become a cache, and a cache becomes batches."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastvla_core.robot.contract import CameraSpec, RobotContract
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.robot.decode import decode_compressed
from training.bags import messages
from training.bags.writer import EpisodeWriter
from training.cache import Conversion, Pictures, open_cache
from training.cache_build import convert_bags, in_processes
from training.dataset import StepDataset, prefetch, training_batch

CAMERAS, WIDTH, HEIGHT, CAMERA_HZ, JOINT_HZ = 3, 640, 480, 30, 100
SIDE = 224
BATCH = 64
KINDS = {
    "jpeg": Pictures(format="jpeg", longest_side=SIDE),
    "raw": Pictures(format="raw", longest_side=SIDE),
    # In the size of the recording, whose files are kept.
    "kept": Pictures(format="jpeg"),
}


def measure_data(*, seconds: float = 10.0, batches: int = 60) -> dict[str, Any]:
    """Frames per second from a JPEG bag, samples per second from its cache; on one core.

    A rate per CPU second is that of one core that has nothing else to do.

    Args:
        seconds: Length of the recording: three cameras of 640x480 at 30 Hz, joints at 100 Hz.
        batches: How many of 64 samples are drawn.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with TemporaryDirectory() as folder:
            return _measure(Path(folder), seconds=seconds, batches=batches)
    finally:
        cv2.setNumThreads(threads)


def _measure(folder: Path, *, seconds: float, batches: int) -> dict[str, Any]:
    contract = bench_contract()
    bag = write_recording(folder / "bag", contract=contract, seconds=seconds)
    size_mb = sum(f.stat().st_size for f in bag.iterdir()) / 1e6
    report: dict[str, Any] = {
        "bag_mb": size_mb,
        "bag_s": seconds,
        # What nothing that unpacks every picture can be faster than.
        "unpacked_jpegs_per_cpu_s": _unpacking_rate(),
    }
    for rate_hz in (10.0, 30.0):
        for kind, pictures in KINDS.items():
            cache = folder / f"{kind}_{rate_hz:g}"
            conversion = Conversion(contract=contract, rate_hz=rate_hz, pictures=pictures)
            wall_s, cpu_s, manifest = _timed(
                lambda out=cache, how=conversion: convert_bags(
                    [bag], out, conversion=how, run=in_processes(1)
                )
            )
            read, used = round(seconds * CAMERA_HZ) * CAMERAS, manifest.frames * CAMERAS
            report[f"convert_{kind}_{rate_hz:g}hz"] = {
                "recorded_frames_per_s": read / wall_s,
                "recorded_frames_per_cpu_s": read / cpu_s,
                "cached_frames_per_cpu_s": used / cpu_s,
                "cache_mb": sum(e.bytes for e in manifest.episode_files) / 1e6,
                "cpu_s_per_gb_of_bag": cpu_s / (size_mb / 1e3),
            }
    for kind in ("jpeg", "raw"):
        report[f"load_{kind}"] = _load(folder / f"{kind}_30", batches=batches)
    return report


def _unpacking_rate(*, times: int = 200) -> float:
    picture = _jpeg(np.random.default_rng(0))

    def unpack() -> None:
        # Nothing is kept: the memory that it would take costs more than a third of the time.
        for _ in range(times):
            decode_compressed(picture, format="jpeg", where="bench")

    # The first call loads the decoder.
    unpack()
    _, cpu_s, _ = _timed(unpack)
    return times / cpu_s


def _load(path: Path, *, batches: int) -> dict[str, float]:
    cache = open_cache(path)
    dataset = StepDataset(cache, cameras=cache.cameras, chunk_size=8, validation=0.0)

    def draw() -> None:
        for step in range(batches):
            training_batch(dataset, seed=0, step=step, batch_size=BATCH, camera_dropout=0.0)

    training_batch(dataset, seed=1, step=0, batch_size=BATCH, camera_dropout=0.0)
    wall_s, cpu_s, _ = _timed(draw)
    samples = batches * BATCH
    result = {"samples_per_s": samples / wall_s, "samples_per_cpu_s": samples / cpu_s}
    for rate in (500, 1000, 2000):
        result[f"stall_share_at_{rate}_samples_per_s"] = stall_share(
            dataset, step_s=BATCH / rate, steps=max(10, batches // 3)
        )
    return result


def stall_share(dataset: StepDataset, *, step_s: float, steps: int) -> float:
    """Share of the time that an accelerator with steps of that length waits for batches.

    The step is a sleep: an accelerator takes none of the loader's core.
    """
    warm_up = 4
    batches = iter(
        prefetch(
            dataset,
            seed=0,
            steps=range(steps + warm_up),
            batch_size=BATCH,
            camera_dropout=0.0,
        )
    )
    waited_s, total_s = 0.0, 0.0
    for number in range(steps + warm_up):
        began = time.perf_counter()
        next(batches)
        wait_s = time.perf_counter() - began
        time.sleep(step_s)
        # The first batches fill the queue, once per run.
        if number >= warm_up:
            waited_s += wait_s
            total_s += time.perf_counter() - began
    return waited_s / total_s


def bench_contract() -> RobotContract:
    """The table-top robot with three cameras as labs have them."""
    base = load_contract("tabletop")
    cameras = tuple(
        CameraSpec(
            name=f"camera{k}", topic=f"camera{k}/image_raw", encoding="rgb8",
            width=WIDTH, height=HEIGHT, transport="compressed",
        )
        for k in range(CAMERAS)
    )  # fmt: skip
    return dataclasses.replace(base, name="bench", cameras=cameras)


def write_recording(folder: Path, *, contract: RobotContract, seconds: float) -> Path:
    """A bag of JPEG pictures with textures that move, and joints that do so, too."""
    random = np.random.default_rng(0)
    names = contract.state_names
    pictures = [_jpeg(random) for _ in range(12)]
    writer = EpisodeWriter(folder, contract=contract, instruction="pick up the red cube")
    with writer:
        events = [(k / CAMERA_HZ, "camera", k) for k in range(round(seconds * CAMERA_HZ))]
        events += [(k / JOINT_HZ, "joints", k) for k in range(round(seconds * JOINT_HZ))]
        for at_s, kind, k in sorted(events):
            stamp_ns = 10**9 + round(at_s * 1e9)
            position = 0.3 * np.sin(at_s + np.arange(len(names)))
            position[-1] = 0.02
            if kind == "joints":
                writer.joint_state(names, stamp_ns=stamp_ns, positions=position)
                continue
            for number, camera in enumerate(contract.policy_cameras):
                message = _compressed(pictures[(k + number) % len(pictures)], stamp_ns)
                writer.write(
                    camera.topic,
                    type_name=messages.COMPRESSED_IMAGE,
                    message=message,
                    stamp_ns=stamp_ns,
                )
            writer.command(names, stamp_ns=stamp_ns, positions=position, duration_s=1 / CAMERA_HZ)
        return writer.close("success")


def _jpeg(random: np.random.Generator) -> NDArray[np.uint8]:
    """A picture with the detail of a camera's: smooth shapes, edges and some noise."""
    coarse = random.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    picture = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    for _ in range(12):
        x, y, r = (int(v) for v in random.integers(0, HEIGHT, 3))
        colour = [int(v) for v in random.integers(0, 256, 3)]
        cv2.circle(picture, (x, y), 10 + r // 6, colour, -1)
    noisy = np.clip(picture + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
    return np.asarray(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def _compressed(data: NDArray[np.uint8], stamp_ns: int) -> Any:
    types = messages.typestore().types
    header = types["std_msgs/msg/Header"](stamp=messages.stamp_of(stamp_ns), frame_id="")
    return types[messages.COMPRESSED_IMAGE](header=header, format="jpeg", data=data)


def _timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result
