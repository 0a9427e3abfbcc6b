"""What one process has once: the types it knows and the domains it has opened."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastvla_core.resources import share_path
from fastvla_ros.embedded.wire.messages import MessageFactory
from fastvla_ros.embedded.wire.participant import Domains
from fastvla_ros.embedded.wire.typestore import TypeStore

INTERFACES = Path(__file__).resolve().parent.parent / "interfaces"


@dataclass(frozen=True, slots=True)
class WireRuntime:
    """Shared by every context, because DDS domains and Python classes are per process."""

    factory: MessageFactory
    domains: Domains


@cache
def wire_runtime() -> WireRuntime:
    """The process's runtime, made when it is first needed."""
    # The folder that holds fastvla_msgs: the checkout, or share/fastvla of an installation.
    own = share_path("fastvla_msgs/action/ExecuteTask.action").parents[2]
    return WireRuntime(MessageFactory(TypeStore([INTERFACES, own])), Domains())
