"""From stream buffers to one Observation: the sample of each stream, its age and the skew."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fastvla_core.errors import ObservationError
from fastvla_core.robot.buffers import JOINT_STATES, Sample, StreamBuffers
from fastvla_core.robot.contract import CameraSpec, RobotContract
from fastvla_core.robot.interpolate import between
from fastvla_core.types import Observation


class StaleStreamError(ObservationError):
    """A required stream is missing, too old, or too far from the others; `stream` names it."""

    def __init__(self, stream: str, message: str, *, mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.stream = stream


def required_streams(contract: RobotContract) -> list[str]:
    """Streams without which no observation is built."""
    return [JOINT_STATES] + [c.name for c in contract.observed_cameras if c.required]


def camera_sample(buffers: StreamBuffers, camera: CameraSpec, *, at_ns: int) -> Sample | None:
    """The picture that stands for an instant by the camera's `align`; its age is not checked.

    At the horizon of all streams both ways give the same live and from a recording: what comes
    afterwards is later than the sample that is there already.
    """
    if camera.align == "hold":
        return buffers.hold(camera.name, at_ns=at_ns)
    before, after = buffers.around(camera.name, at_ns=at_ns)
    if before is None or after is None:
        return before or after
    return after if after.stamp_ns - at_ns < at_ns - before.stamp_ns else before


def _joint_sample(buffers: StreamBuffers, contract: RobotContract, at_ns: int) -> Sample | None:
    """The joints at an instant by `joint_states.align`, with the stamp that its age counts from."""
    if contract.joint_states.align == "hold":
        return buffers.hold(JOINT_STATES, at_ns=at_ns)
    before, after = buffers.around(JOINT_STATES, at_ns=at_ns)
    if before is None or after is None or before is after:
        return before if before is after else None
    # The farther of the two is the one whose age matters.
    farther_ns = max(at_ns - before.stamp_ns, after.stamp_ns - at_ns)
    weight = np.array([(at_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)])
    value = between(contract, before=before.value, after=after.value, weight=weight)
    return Sample(at_ns - farther_ns, value.astype(np.float32))


def observe(
    buffers: StreamBuffers, *, contract: RobotContract, task: str, at_ns: int | None = None
) -> Observation:
    """Align every stream at one instant; the only way that instant's Observation is built.

    Args:
        buffers: Images as uint8 [H, W, 3] and depths as float32 [H, W] under the camera's name,
            states as float32 [S] under `joint_states`, in the contract's order.
        at_ns: The instant; by default the latest one that every required stream has reached.

    Raises:
        StaleStreamError: a required stream is missing or older than its `max_age_s` at that
            instant, or the cameras are further apart than `sync.max_skew_s`.
    """
    if at_ns is None:
        at_ns = _horizon(buffers, contract)
    images, stamps = {}, {}
    for camera in contract.observed_cameras:
        sample = camera_sample(buffers, camera, at_ns=at_ns)
        age = None if sample is None else abs(at_ns - sample.stamp_ns)
        if sample is None or age is None or age > round(camera.max_age_s * 1e9):
            if camera.required:
                raise _stale(camera.name, age_ns=age, max_age_s=camera.max_age_s)
            continue
        images[camera.name], stamps[camera.name] = sample.value, sample.stamp_ns
    joints = _joint_sample(buffers, contract, at_ns)
    limit_s = contract.joint_states.max_age_s
    if joints is None or at_ns - joints.stamp_ns > round(limit_s * 1e9):
        age = None if joints is None else at_ns - joints.stamp_ns
        raise _stale(JOINT_STATES, age_ns=age, max_age_s=limit_s)
    limit_ns = round(contract.sync.max_skew_s * 1e9)
    for camera in contract.observed_cameras:
        # An optional camera that lags is missing; it must not stop the others.
        lag_ns = max(stamps.values(), default=0) - stamps.get(camera.name, 0)
        if camera.name in stamps and not camera.required and lag_ns > limit_ns:
            del images[camera.name], stamps[camera.name]
    skew_ns = max(stamps.values()) - min(stamps.values()) if stamps else 0
    if skew_ns > limit_ns:
        late = min(stamps, key=lambda name: stamps[name])
        raise StaleStreamError(
            late,
            f"camera '{late}' is {skew_ns / 1e9:.3f} s behind the others, "
            f"more than sync.max_skew_s = {contract.sync.max_skew_s} s",
            mend="synchronise the cameras, or raise sync.max_skew_s in the robot contract",
        )
    oldest = min([joints.stamp_ns, *stamps.values()])
    deep = {camera.name for camera in contract.observed_cameras if camera.kind == "depth"}
    return Observation(
        stamp_ns=at_ns,
        task=task,
        images={name: image for name, image in images.items() if name not in deep},
        depths={name: image for name, image in images.items() if name in deep},
        state=np.asarray(joints.value, np.float32),
        oldest_age_ns=max(0, at_ns - oldest),
        camera_skew_ns=skew_ns,
    )


def observe_with_past(
    buffers: StreamBuffers, *, contract: RobotContract, task: str, history_s: Sequence[float]
) -> Observation:
    """As `observe` now, with what was observed before in `Observation.earlier`.

    What nobody saw, as at the start of a goal, is left out, and so is all that is older.

    Args:
        history_s: How long before, oldest first [s].
    Raises:
        StaleStreamError: see `observe`; of the present only.
    """
    newest = observe(buffers, contract=contract, task=task)
    earlier: list[Observation] = []
    for before_s in reversed(history_s):
        at_ns = newest.stamp_ns - round(before_s * 1e9)
        try:
            earlier.insert(0, observe(buffers, contract=contract, task=task, at_ns=at_ns))
        except StaleStreamError:
            break
    return dataclasses.replace(newest, earlier=tuple(earlier))


def check_fresh(buffers: StreamBuffers, *, contract: RobotContract, now_ns: int) -> None:
    """Compare every required stream's newest stamp with the clock.

    Raises:
        StaleStreamError: the first stream that has gone quiet for longer than its maximum age.
    """
    limits = {c.name: c.max_age_s for c in contract.observed_cameras if c.required}
    limits[JOINT_STATES] = contract.joint_states.max_age_s
    for stream, limit_s in limits.items():
        newest = buffers.newest_ns(stream)
        if newest is None or now_ns - newest > round(limit_s * 1e9):
            age = None if newest is None else now_ns - newest
            raise _stale(stream, age_ns=age, max_age_s=limit_s)


def _horizon(buffers: StreamBuffers, contract: RobotContract) -> int:
    streams = required_streams(contract)
    horizon_ns = buffers.horizon_ns(streams)
    if horizon_ns is None:
        silent = [stream for stream in streams if buffers.newest_ns(stream) is None]
        # Its first sample may have come meanwhile.
        raise _stale((silent or streams)[0], age_ns=None, max_age_s=0.0)
    return horizon_ns


def _stale(stream: str, *, age_ns: int | None, max_age_s: float) -> StaleStreamError:
    what = (
        "has published nothing yet"
        if age_ns is None
        else f"is {age_ns / 1e9:.3f} s old, its maximum age is {max_age_s} s"
    )
    return StaleStreamError(
        stream,
        f"stream '{stream}' {what}",
        mend="check that its publisher runs and its topic and QoS match: `fastvla doctor`",
    )
