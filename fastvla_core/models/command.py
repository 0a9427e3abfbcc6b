"""`fastvla models`: which policies there are, and what a checkpoint holds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from fastvla_core.errors import CheckpointError, FastVLAError
from fastvla_core.models.registry import POLICIES, PRESETS, VISION_STEMS
from fastvla_core.resources import share_path

HELP = "list policies; explain a checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list` and `show`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="shipped policies, types and presets")
    show = actions.add_parser("show", help="what a checkpoint is, and what it was trained for")
    show.add_argument("policy", help="folder, shipped name or Hub repository")
    parity = actions.add_parser("parity", help="compare policies with stored reference results")
    parity.add_argument("folder", type=Path, help="folder of stored cases, of one policy or more")
    for action in (listing, show, parity):
        action.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the answer; 1 where stored results and ours differ.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
    """
    if args.action == "parity":
        return _parity(args.folder, as_json=args.json)
    answer = _listing() if args.action == "list" else describe(args.policy)
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    width = max(map(len, answer))
    for key, value in answer.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{key:<{width}}  {'-' if shown in (None, '') else shown}")
    return 0


def _parity(folder: Path, *, as_json: bool) -> int:
    from fastvla_core.models.parity.cases import find_case_folders
    from fastvla_core.models.parity.run import as_text, run_parity, to_json

    try:
        find_case_folders(folder)
    except CheckpointError as error:
        print(f"fastvla models parity: {error}", file=sys.stderr)
        return 2
    results = run_parity(folder)
    print(json.dumps(to_json(results), indent=2) if as_json else as_text(results))
    return 0 if results and all(result.passed for result in results) else 1


def describe(path_or_name: str) -> dict[str, Any]:
    """What a checkpoint is, without building its network.

    Raises:
        CheckpointError: it is missing, damaged, of an unknown type, or a weight is not finite.
    """
    from fastvla_core.models.checkpoint import not_finite, tensor_shapes
    from fastvla_core.models.hub import find_checkpoint
    from fastvla_core.models.lerobot.files import NO_LOCAL_FILES
    from fastvla_core.models.loading import load_config

    folder = find_checkpoint(path_or_name)
    family, config = load_config(folder)
    family.load_processor(folder, config, files=NO_LOCAL_FILES)
    weights = folder / "model.safetensors"
    shapes = tensor_shapes(weights)
    if broken := not_finite(weights):
        raise CheckpointError(
            f"{weights}: {len(broken)} tensors hold NaN or infinity, the first is '{broken[0]}'",
            mend="use an earlier checkpoint; training writes one of those that were still finite",
        )
    contract = config.robot_contract or {}
    return {
        "folder": str(folder),
        "type": config.to_dict()["type"],
        "robot": contract.get("name"),
        "contract hash": config.robot_contract_hash,
        "cameras": list(config.cameras),
        "may be missing": list(config.optional_cameras),
        "image size": " x ".join(map(str, config.image_resolution)),
        "state": list(config.state_names),
        "action": list(config.action_names),
        "relative to the state": list(config.relative_joints),
        "chunk": f"{config.chunk_size} steps of {config.action_dt_s:g} s, "
        f"{config.n_action_steps} executed per inference",
        "flow steps": config.num_inference_steps,
        "weights": f"{weights.stat().st_size / 1e6:.2f} MB",
        "precision": _precision(shapes),
    }


def _precision(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> str:
    """For example "I8 (24 layers), F32": the quantised layers first."""
    packed = {
        "NF4": sum(1 for name in tensors if ".quant_state." in name),
        "int8": sum(1 for name in tensors if name.endswith(".SCB")),
    }
    kinds = [f"{kind} ({count} layers)" for kind, count in packed.items() if count]
    floats = sorted({dtype for dtype, _ in tensors.values() if dtype.startswith(("F", "BF"))})
    return ", ".join(kinds + floats)


def _listing() -> dict[str, Any]:
    return {
        "shipped policies": _shipped(),
        "policy types": list(POLICIES.names()),
        "presets": list(PRESETS.names()),
        "vision stems": list(VISION_STEMS.names()),
    }


def _shipped() -> list[str]:
    try:
        folder = share_path("config/policies")
    except FastVLAError:
        return []
    return sorted(Path(p).name for p in folder.iterdir() if (p / "config.json").is_file())
