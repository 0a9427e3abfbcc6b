"""The robot contract and the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from fastvla_core.robot.contract import contract_differences
from fastvla_core.robot.contract_file import load_contract, parse_contract
from fastvla_core.robot.velocity import load_tool_chain
from fastvla_ros.doctor.findings import Finding, ok


def check_contract(name: str) -> Iterator[Finding]:
    """Whether it can be read, and the URDF that it may need.

    Raises:
        ContractError: they cannot.
    """
    contract = load_contract(name)
    load_tool_chain(contract, source=name)
    cameras = ", ".join(camera.name for camera in contract.cameras)
    yield ok("contract", f"'{contract.name}': {len(contract.joints)} joints, cameras {cameras}")


def check_checkpoint(checkpoint: str, contract: str) -> Iterator[Finding]:
    """Whether it can be loaded for this robot.

    Raises:
        FastVLAError: it cannot.
    """
    from fastvla_core.models.hub import find_checkpoint
    from fastvla_core.policy import FastVLA

    folder, robot = find_checkpoint(checkpoint), load_contract(contract)
    policy = FastVLA.from_pretrained(folder, contract=robot)
    millions = sum(p.numel() for p in policy.model.parameters()) / 1e6
    yield ok("checkpoint", f"{folder}: {millions:.1f} M parameters, for this robot")
    if policy.config.robot_contract is not None:
        trained = parse_contract(policy.config.robot_contract, source=str(folder))
        for line in contract_differences(robot, trained):
            yield ok("checkpoint", f"{line}, where it was trained; it does not depend on that")
