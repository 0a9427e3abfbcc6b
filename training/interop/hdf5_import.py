"""HDF5 demonstrations in the layout of robomimic and LIBERO as a cache.

    data/demo_N/obs/{<camera>_rgb | <camera>_image, joint_states | robot0_joint_pos,
                     gripper_states | robot0_gripper_qpos}, data/demo_N/actions

Their actions are increments of the tool, which are no joint targets: labels are the next state.
Source: robomimic's dataset documentation; LIBERO's download script.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import DatasetError, FastVLAError
from training.cache_build import in_processes
from training.cache_files import CacheEntry, CacheManifest
from training.cache_folder import Progress, fill_cache, source_entry
from training.cache_shard import CachedEpisode
from training.interop.imported import ImportOptions, keep_episode, labels, require, subsampled

_JOINTS = ("joint_states", "robot0_joint_pos")
_GRIPPER = ("gripper_states", "robot0_gripper_qpos")


def import_hdf5(
    source: str | Path,
    cache_dir: str | Path,
    *,
    options: ImportOptions,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CacheManifest:
    """Make a cache of one file, or of all files below a folder; a file is one source.

    Raises:
        DatasetError: nothing there is a file of demonstrations that fits the contract.
        DependencyError: h5py is not installed.
    """
    require("h5py")
    path, source = Path(cache_dir).absolute(), Path(source).resolve()
    files = sorted(source.rglob("*.hdf5")) + sorted(source.rglob("*.h5"))
    files = [source] if source.is_file() else files
    if not files:
        raise DatasetError(f"{source}: holds no .hdf5 file", mend="check the path")
    if options.action == "command":
        raise DatasetError(
            "the actions of these files are increments of the tool, not joint targets",
            mend="take the next state as the action: --action next_state",
        )
    rate_hz, _ = subsampled(_rate(files[0]), options.rate_hz, where=str(files[0]))
    return fill_cache(
        files,
        path,
        settings=options.settings("hdf5", rate_hz=rate_hz),
        convert=functools.partial(_convert, path=path, options=options),
        run=in_processes(workers),
        progress=progress,
    )


def _convert(file: Path, *, path: Path, options: ImportOptions) -> CacheEntry:
    h5py = require("h5py")
    entry = source_entry(file, with_hash=True)
    try:
        with h5py.File(file, "r") as content:
            demos = _demos(content, file)
            task = options.instruction or _instruction(content, file)
            rate_hz, stride = subsampled(_rate(file), options.rate_hz, where=str(file))
            episodes = [
                _convert_demo(
                    demo, entry, number=number, path=path, options=options, rate_hz=rate_hz,
                    stride=stride, instruction=task,
                )
                for number, demo in enumerate(demos)
            ]  # fmt: skip
    except FastVLAError as error:
        return dataclasses.replace(entry, skipped=str(error), failed=True)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        reason = f"{file}: cannot be read ({error})"
        return dataclasses.replace(entry, skipped=reason, failed=True)
    return dataclasses.replace(entry, episodes=tuple(episodes))


def _convert_demo(
    demo: Any,
    entry: CacheEntry,
    *,
    number: int,
    path: Path,
    options: ImportOptions,
    rate_hz: float,
    stride: int,
    instruction: str,
) -> CachedEpisode:
    try:
        state = _state(demo["obs"], options, where=demo.name)
        action = None
        if options.action == "delta":
            action = np.asarray(demo["actions"], np.float32)
            if action.shape != state.shape:
                raise DatasetError(
                    f"{demo.name}: {action.shape[1]} actions for {state.shape[1]} joints",
                    mend="take the next state as the action: --action next_state",
                )
        frames, label = labels(state, action, stride=stride, options=options)
        return keep_episode(
            entry,
            number=number,
            path=path,
            options=options,
            rate_hz=rate_hz,
            instruction=instruction,
            images=_pictures(demo["obs"], options, frames, where=demo.name),
            state=state[frames],
            label=label,
        )
    except DatasetError as error:
        return CachedEpisode(skipped=error.message, failed=True)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        return CachedEpisode(skipped=f"{demo.name}: cannot be read ({error})", failed=True)


def _demos(content: Any, file: Path) -> list[Any]:
    group = content.get("data")
    names = [name for name in group or () if re.fullmatch(r"demo_?\d+", name)]
    if not names:
        raise DatasetError(
            f"{file}: holds no demonstrations (data/demo_0, ...)",
            mend="give a file in robomimic's or LIBERO's layout",
        )
    return [group[name] for name in sorted(names, key=lambda n: int(re.sub(r"\D", "", n)))]


def _state(obs: Any, options: ImportOptions, *, where: str) -> NDArray[np.float32]:
    joints = np.asarray(_first(obs, _JOINTS, where=where), np.float32)
    contract = options.contract
    if joints.shape[1] != len(contract.joints):
        raise DatasetError(
            f"{where}: has {joints.shape[1]} joints, the contract {len(contract.joints)}",
            mend="give a contract of this robot",
        )
    if contract.gripper is None:
        return joints
    fingers = np.asarray(_first(obs, _GRIPPER, where=where), np.float32)
    # Two fingers that move apart, one of them to the negative side: the opening is that of one.
    opening = np.abs(fingers.reshape(len(fingers), -1)[:, :1])
    return np.concatenate([joints, opening], axis=1)


def _pictures(
    obs: Any, options: ImportOptions, frames: NDArray[np.int64], *, where: str
) -> Iterator[Mapping[str, NDArray[np.uint8]]]:
    streams = {}
    for camera in options.contract.policy_cameras:
        key = options.cameras.get(camera.name)
        names = (key,) if key else (camera.name, f"{camera.name}_rgb", f"{camera.name}_image")
        streams[camera.name] = _first(obs, names, where=where)
    for frame in frames.tolist():
        yield {name: np.asarray(stream[frame], np.uint8) for name, stream in streams.items()}


def _first(obs: Any, names: tuple[str, ...], *, where: str) -> Any:
    for name in names:
        if name in obs:
            return obs[name]
    raise DatasetError(
        f"{where}: has none of {', '.join(names)} (it has {', '.join(obs)})",
        mend="name a camera's pictures with --camera NAME=KEY",
    )


def _instruction(content: Any, file: Path) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = json.loads(content["data"].attrs["problem_info"])["language_instruction"]
        text = " ".join(text) if isinstance(text, list) else text
        if text.strip().strip('"'):
            return text.strip().strip('"')
    raise DatasetError(f"{file}: does not say what the task was", mend="give it with --instruction")


def _rate(file: Path) -> float:
    """Control steps per second, from what the simulator was set up with; 20 is their default."""
    h5py = require("h5py")
    with (
        contextlib.suppress(OSError, ValueError, KeyError, TypeError),
        h5py.File(file, "r") as content,
    ):
        arguments = json.loads(content["data"].attrs["env_args"])
        return float(arguments["env_kwargs"]["control_freq"])
    return 20.0
