"""Refuses a policy that was trained for another robot, and says how the two differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastvla_core.errors import ContractError
from fastvla_core.robot.compatibility import policy_differences
from fastvla_core.robot.contract import RobotContract, contract_differences
from fastvla_core.robot.contract_file import parse_contract


def check_trained_for(
    contract: RobotContract, trained: Mapping[str, Any] | None, *, source: str
) -> None:
    """See that a policy may serve a robot; `policy_differences` says what must agree.

    Args:
        contract: The robot that is served.
        trained: The contract that the policy was trained for, as plain data; None where it names
            none.
        source: Where the policy is, for the message.

    Raises:
        ContractError: it names none, or one that differs; lists the differences.
    """
    if trained is None:
        raise ContractError(
            f"{source} names no robot contract",
            mend="train the policy with a contract, or serve it without one",
        )
    other = parse_contract(trained, source=source)
    differences = policy_differences(contract, other)
    if differences:
        every = contract_differences(contract, other)
        harmless = [f"({line}: does not matter)" for line in every if line not in differences]
        listed = "\n  ".join([*differences, *harmless])
        raise ContractError(
            f"{source}: trained for robot '{other.name}', served on '{contract.name}':\n  {listed}",
            mend="serve the contract that the policy was trained with, or train it again",
        )
