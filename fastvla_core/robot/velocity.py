"""From position set points to velocities, for robots that are commanded by velocity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastvla_core.errors import ContractError
from fastvla_core.resources import share_path
from fastvla_core.robot.contract import RobotContract, TwistSpec
from fastvla_core.robot.kinematics import ToolChain, read_chain
from fastvla_core.robot.limits import motion_limits
from fastvla_core.types import TwistCommand


class TwistConverter:
    """Joint velocities of the arm as the tool's twist, within the contract's limits."""

    def __init__(self, spec: TwistSpec, *, chain: ToolChain) -> None:
        self._spec, self._chain = spec, chain

    def share(self, velocities: NDArray[np.float64], *, at: NDArray[np.float64]) -> float:
        """By how much the velocities [J] must be slowed down at these positions, in (0, 1]."""
        twist = self._chain.jacobian(at) @ velocities
        linear, angular = np.linalg.norm(twist[:3]), np.linalg.norm(twist[3:])
        slowest = max(linear / self._spec.max_linear, angular / self._spec.max_angular, 1.0)
        return float(1.0 / slowest)

    def command(
        self, velocities: NDArray[np.float64], *, at: NDArray[np.float64], stamp_ns: int
    ) -> TwistCommand:
        """The tool's twist at these joint positions and velocities, float64 [J] each.

        At rest the positions do not matter and may be unknown (NaN).
        """
        spec = self._spec
        frame = spec.tool if spec.frame == "tool" else spec.base
        linear, angular = np.zeros(3), np.zeros(3)
        if velocities.any():
            linear, angular = np.split(self._chain.jacobian(at) @ velocities, 2)
            if spec.frame == "tool":
                into = self._chain.pose(at).rotation.T
                linear, angular = into @ linear, into @ angular
        return TwistCommand(stamp_ns=stamp_ns, frame=frame, linear=linear, angular=angular)


def load_twist_converter(contract: RobotContract, *, source: str | Path) -> TwistConverter | None:
    """What the interface `twist` needs; None where the contract commands otherwise.

    Raises:
        ContractError: as `load_tool_chain`.
    """
    chain, spec = load_tool_chain(contract, source=source), contract.outputs.twist
    return None if chain is None or spec is None else TwistConverter(spec, chain=chain)


def load_tool_chain(contract: RobotContract, *, source: str | Path) -> ToolChain | None:
    """The arm of the contract's URDF; None where the contract commands no twist.

    Args:
        source: The contract's file, or its shipped name; the URDF lies beside it.

    Raises:
        ContractError: the URDF is missing, or does not fit the joints.
    """
    spec = contract.outputs.twist
    if contract.outputs.interface != "twist" or spec is None:
        return None
    names = [contract.driver_names[joint.name] for joint in contract.joints]
    path = _urdf_path(spec.urdf, Path(source))
    return read_chain(path, base=spec.base, tool=spec.tool, joints=names)


class VelocityFollower:
    """Velocities that lead along a stream of set points, within the contract's limits.

    The velocity of the set point, and `outputs.position_gain` times the distance to it: without
    the second part the robot would drift away from what was asked for.

    Args:
        twist: Where the tool's velocity is limited too.
    """

    def __init__(self, contract: RobotContract, *, twist: TwistConverter | None = None) -> None:
        self._count = len(contract.joints)
        self._names = contract.action_names[: self._count]
        self._limits = motion_limits(contract)
        self._gain = contract.outputs.position_gain
        self._twist = twist
        self._last = np.zeros(self._count)

    def reset(self) -> None:
        """Start anew at rest."""
        self._last = np.zeros(self._count)

    def follow(
        self,
        setpoint: NDArray[np.float64],
        *,
        velocity: NDArray[np.float64],
        measured: NDArray[np.float64],
        dt_s: float,
    ) -> tuple[NDArray[np.float64], tuple[str, ...]]:
        """The velocities for the next `dt_s`, and the joints whose velocity had to be limited.

        Args:
            setpoint, velocity, measured: Of the arm, float64 [J]; rad, m and s.
        """
        limits, count = self._limits, self._count
        wanted = velocity + self._gain * (setpoint - measured)
        allowed = np.clip(wanted, -limits.velocity[:count], limits.velocity[:count])
        change = limits.acceleration[:count] * dt_s
        allowed = np.clip(allowed, self._last - change, self._last + change)
        # Never further than a limit within one step; from beyond it, only back.
        highest = np.maximum((limits.upper[:count] - measured) / dt_s, 0.0)
        lowest = np.minimum((limits.lower[:count] - measured) / dt_s, 0.0)
        allowed = np.clip(allowed, lowest, highest)
        if self._twist is not None:
            allowed = allowed * self._twist.share(allowed, at=measured)
        self._last = allowed
        changed = np.abs(allowed - wanted) > 1e-9
        return allowed, tuple(name for name, c in zip(self._names, changed) if c)


def _urdf_path(urdf: str, contract: Path) -> Path:
    path = contract.parent / urdf if contract.suffix else share_path("config/robots") / urdf
    if not path.is_file():
        raise ContractError(
            f"outputs.twist.urdf: there is no file {path}",
            mend="give the URDF's path from the contract's folder",
        )
    return path
