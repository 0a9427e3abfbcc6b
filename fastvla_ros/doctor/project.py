"""The robot contract and the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from fastvla_core.robot.contract_file import load_contract
from fastvla_ros.doctor.findings import Finding, ok


def check_contract(name: str) -> Iterator[Finding]:
    """Whether it can be read.

    Raises:
        ContractError: it cannot.
    """
    contract = load_contract(name)
    cameras = ", ".join(camera.name for camera in contract.cameras)
    yield ok("contract", f"'{contract.name}': {len(contract.joints)} joints, cameras {cameras}")


def check_checkpoint(checkpoint: str, contract: str) -> Iterator[Finding]:
    """Whether it can be loaded for this robot.

    Raises:
        FastVLAError: it cannot.
    """
    from fastvla_core.models.hub import find_checkpoint
    from fastvla_core.policy import FastVLA

    folder = find_checkpoint(checkpoint)
    policy = FastVLA.from_pretrained(folder, contract=load_contract(contract))
    millions = sum(p.numel() for p in policy.model.parameters()) / 1e6
    yield ok("checkpoint", f"{folder}: {millions:.1f} M parameters, for this robot")
