"""The exception tree. Every error a user can mend says what is wrong, where, and how to mend it."""

from __future__ import annotations


class FastVLAError(Exception):
    """Base of all errors that FastVLA raises on purpose.

    Args:
        message: What is wrong and where (file, key, topic, tensor).
        mend: What the reader can do about it; shown on a line of its own.
    """

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message}\n  to mend: {self.mend}" if self.mend else self.message


class ContractError(FastVLAError):
    """A robot contract is malformed, or two contracts that must agree do not."""


class CheckpointError(FastVLAError):
    """A checkpoint is missing, damaged, or made for something else."""


class BagError(FastVLAError):
    """A recording cannot be read, or holds nothing that can be used."""


class DatasetError(FastVLAError):
    """Episodes, caches or statistics do not fit together."""


class MessageError(FastVLAError):
    """A ROS message breaks its own rules: encoding, step, names, dimension."""


class ObservationError(FastVLAError):
    """An observation cannot be built or is not what the policy expects."""


class PolicyError(FastVLAError):
    """A policy gave something that must not reach a robot."""


class CommandError(FastVLAError):
    """A command is not valid for this robot."""


class SimError(FastVLAError):
    """The simulator cannot start or was given an impossible target."""


class QuantError(FastVLAError):
    """Weights cannot be quantised or their quantisation state is damaged."""


class KernelInputError(FastVLAError):
    """A kernel was called with shapes, strides or types that it does not serve."""


class RosError(FastVLAError):
    """The ROS graph is not as it should be: names, types, QoS, peers."""


class RemoteError(FastVLAError):
    """A policy on another machine cannot be used: address, credentials, checkpoint, protocol."""


class RemoteUnavailableError(RemoteError):
    """The policy's machine does not answer at the moment; a later observation may get through."""


class RemoteTimeoutError(RemoteError):
    """The policy's machine took longer than an inference may."""


class DependencyError(FastVLAError):
    """A package or system library is missing."""
