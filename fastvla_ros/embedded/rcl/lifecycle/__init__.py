"""Nodes whose life is managed: configure, activate, deactivate, clean up, shut down."""

from fastvla_ros.embedded.rcl.lifecycle.managed_entity import ManagedEntity, SimpleManagedEntity
from fastvla_ros.embedded.rcl.lifecycle.node import (
    LifecycleNode,
    LifecycleNodeMixin,
    LifecycleState,
)
from fastvla_ros.embedded.rcl.lifecycle.publisher import LifecyclePublisher
from fastvla_ros.embedded.rcl.lifecycle.transitions import TransitionCallbackReturn

Node = LifecycleNode
NodeMixin = LifecycleNodeMixin
State = LifecycleState
Publisher = LifecyclePublisher

__all__ = [
    "LifecycleNode",
    "LifecycleNodeMixin",
    "LifecyclePublisher",
    "LifecycleState",
    "ManagedEntity",
    "SimpleManagedEntity",
    "TransitionCallbackReturn",
]
