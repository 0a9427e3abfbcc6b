"""The policy server with the policy of fixed chunks in the model's place."""

from __future__ import annotations

from fastvla_core.robot.contract import RobotContract
from fastvla_core.runtime.engine import InferenceWorker
from fastvla_ros.bench.fixed_policy import FixedChunkPolicy
from fastvla_ros.nodes.policy_server_node import PolicyServerNode
from fastvla_ros.nodes.policy_server_parameters import ServerParameters


class FixedPolicyServerNode(PolicyServerNode):
    """Everything of the real server but the model."""

    def _load_worker(
        self, parameters: ServerParameters, contract: RobotContract
    ) -> InferenceWorker:
        del parameters
        return InferenceWorker(FixedChunkPolicy(contract))
