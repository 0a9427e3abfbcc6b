"""`fastvla models`: which policies there are, what a checkpoint is, whether it computes right."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from fastvla_core.arguments import positive_float
from fastvla_core.errors import CheckpointError, FastVLAError
from fastvla_core.models.registry import (
    ACTION_HEADS,
    POLICIES,
    PRESETS,
    VISION_STEMS,
    VLM_BACKBONES,
    VLM_FAMILIES,
)
from fastvla_core.resources import share_path

HELP = "list policies; explain, compare and bind checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`, `show`, `parity` and `bind`; without any of them it is `list`."""
    parser.set_defaults(action="list", json=False)
    actions = parser.add_subparsers(metavar="ACTION")
    listing = actions.add_parser("list", help="shipped policies, types with sizes and licences")
    listing.set_defaults(action="list")
    show = actions.add_parser("show", help="what a checkpoint is, and what it was trained for")
    show.set_defaults(action="show")
    show.add_argument("policy", help="folder, shipped name, Hub repository or name of a backbone")
    parity = actions.add_parser("parity", help="compare policies with stored reference results")
    parity.set_defaults(action="parity")
    parity.add_argument("folder", type=Path, help="folder of stored cases, of one policy or more")
    for action in (listing, show, parity):
        action.add_argument("--json", action="store_true", help="print JSON")
    _add_bind(actions.add_parser("bind", help="tell a checkpoint whose cameras and joints it has"))


def _add_bind(bind: argparse.ArgumentParser) -> None:
    bind.set_defaults(action="bind")
    bind.add_argument("policy", help="folder or Hub repository in the layout of LeRobot or openpi")
    bind.add_argument("--contract", required=True, help="robot contract: a name or a file")
    bind.add_argument(
        "--camera",
        action="append",
        default=[],
        type=_camera,
        metavar="POLICY=ROBOT",
        help="the policy's camera and the robot's in its place; '-' where there is none",
    )
    bind.add_argument(
        "--dt", type=positive_float, metavar="S", help="time between two actions (default: 1/30)"
    )
    bind.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")


def run(args: argparse.Namespace) -> int:
    """Print the answer; 1 where stored results and ours differ.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        ContractError: `bind` finds no partner for a camera or a joint.
    """
    if args.action == "parity":
        return _parity(args.folder, as_json=args.json)
    if args.action == "bind":
        return _bind(args)
    answer = _listing() if args.action == "list" else _shown(args.policy)
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    width = max(map(len, answer))
    for key, value in answer.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{key:<{width}}  {'-' if shown in (None, '') else shown}")
    return 0


def _shown(policy: str) -> dict[str, Any]:
    from fastvla_core.models.describe import describe

    folder = Path(policy)
    if _is_backbone(folder) if folder.exists() else policy in VLM_BACKBONES:
        from fastvla_core.models.backbones.vlm.describe import describe_backbone
        from fastvla_core.models.backbones.vlm.loading import find_backbone

        folder, origin = find_backbone(policy, weights=False)
        return describe_backbone(folder, origin=origin)
    return describe(policy)


def _is_backbone(folder: Path) -> bool:
    """Whether FOLDER/config.json is a vision-language model's, and no policy's."""
    from fastvla_core.models.checkpoint import read_json

    if not (folder / "config.json").is_file():
        return False
    data = read_json(folder / "config.json")
    return "type" not in data and data.get("model_type") in VLM_FAMILIES


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


def _bind(args: argparse.Namespace) -> int:
    from fastvla_core.robot.contract_file import load_contract

    # A command stands above the policy although its room stands below; as in `cli`, by name.
    policies = importlib.import_module("fastvla_core.policy").FastVLA
    bindings = importlib.import_module("fastvla_core.contract_binding").RobotBinding
    policy = policies.from_pretrained(
        args.policy,
        contract=load_contract(args.contract),
        binding=bindings(cameras=dict(args.camera), action_dt_s=args.dt),
    )
    policy.save_pretrained(args.out)
    print(f"written to {args.out}: serves robot '{policy.config.robot_contract['name']}'")
    return 0


def _camera(text: str) -> tuple[str, str | None]:
    policy, mark, robot = text.partition("=")
    if not policy or not robot or not mark:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form POLICY=ROBOT")
    return policy, None if robot == "-" else robot


def _listing() -> dict[str, Any]:
    from fastvla_core.models.catalogue import CATALOGUE, HEADS

    types = {
        name: f"{entry.title}: {entry.parameters} parameters, {entry.memory}, {entry.licence}; "
        f"for example {entry.example}"
        for name, entry in CATALOGUE.items()
    }
    return {
        "shipped policies": _shipped(),
        "policy types": list(POLICIES.names()),
        **{f"  {name}": line for name, line in types.items()},
        "backbones": list(VLM_BACKBONES.names()),
        **{f"  {name}": str(entry) for name, entry in VLM_BACKBONES.entries().items()},
        "presets": list(PRESETS.names()),
        "action heads": list(ACTION_HEADS.names()),
        **{f"  {name}": line for name, line in HEADS.items()},
        "fusions": ["tokens", "cross_attention"],
        "vision stems": list(VISION_STEMS.names()),
    }


def _shipped() -> list[str]:
    try:
        folder = share_path("config/policies")
    except FastVLAError:
        return []
    return sorted(Path(p).name for p in folder.iterdir() if (p / "config.json").is_file())
