"""The policy server: a lifecycle node that carries out one instruction at a time."""

from __future__ import annotations

import gc
import threading
from collections import deque
from dataclasses import replace
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from fastvla_core.errors import FastVLAError, RosError
from fastvla_core.robot.contract import RobotContract
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.runtime.engine import InferenceWorker
from fastvla_core.runtime.merging import check_merge
from fastvla_msgs.srv import LoadCheckpoint
from fastvla_ros.bridge.streams import StreamBridge
from fastvla_ros.diagnostics.status import DiagnosticsPublisher, Status
from fastvla_ros.nodes.goal_types import PathLatency
from fastvla_ros.nodes.policy_server_diagnostics import server_statuses
from fastvla_ros.nodes.policy_server_goals import ServerGoals, Serving
from fastvla_ros.nodes.policy_server_links import ServerLinks
from fastvla_ros.nodes.policy_server_loading import (
    BoundedLoader,
    how_it_is_served,
    load_policy,
    warm_up,
)
from fastvla_ros.nodes.policy_server_parameters import (
    ServerParameters,
    declare_parameters,
    read_parameters,
)


class PolicyServerNode(LifecycleNode):
    """Serves `~/execute_task`; its parameters are in `policy_server_parameters`.

    Raises:
        FastVLAError: with `autostart`, when it cannot be configured.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("policy_server", **options)
        declare_parameters(self)
        self._goals = ServerGoals(self)
        self.create_service(
            LoadCheckpoint,
            "~/load_checkpoint",
            self._on_load_checkpoint,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        self._serving: Serving | None = None
        self._loader = BoundedLoader[InferenceWorker]()
        self._failure: FastVLAError | None = None
        self._starting = False
        self._control_timer: Any = None
        self._changing, self._diagnosing = threading.RLock(), threading.Lock()
        self._diagnostics: DiagnosticsPublisher | None = None
        if self.get_parameter("autostart").value:
            self._start()
        self._survive_impossible_transitions()
        self._goals.serve()

    @property
    def latencies(self) -> deque[PathLatency]:
        """Each chunk's way from image arrival to command, newest last."""
        return self._goals.latencies

    def prepare_shutdown(self) -> None:
        """Hold and finish the running goal, while the executor can still send its result."""
        self._goals.deactivate("the server shuts down")

    def destroy_node(self) -> None:
        """Hold, finish the running goal, let go of the policy, leave the graph."""
        self._release("the server shuts down")
        self._goals.destroy()
        super().destroy_node()

    def _start(self) -> None:
        self._starting = True
        done = self.trigger_configure() == TransitionCallbackReturn.SUCCESS
        if not done or self.trigger_activate() != TransitionCallbackReturn.SUCCESS:
            self.destroy_node()
            raise self._failure or RosError(
                "policy_server: cannot be started", mend="its log above says why"
            )
        self._starting = False

    def _survive_impossible_transitions(self) -> None:
        # In rclpy a request for a transition that is not possible now raises, which would end
        # the executor and with it the process. The embedded runtime refuses it in words.
        service = getattr(self, "_service_change_state", None)
        if service is None:
            return
        answer = service.callback

        def answer_or_refuse(request: Any, response: Any) -> Any:
            try:
                return answer(request, response)
            except RuntimeError as error:
                self.get_logger().warning(f"transition {request.transition.id}: {error}")
                response.success = False
                return response

        service.callback = answer_or_refuse

    # -- life cycle, called by the lifecycle services ------------------------------------------

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Load the policy, warm it up, and join the topics."""
        try:
            self._serving = self._load()
        except FastVLAError as error:
            return self._cannot_configure(error)
        # rclpy would swallow anything else: a transition that fails must say why.
        except Exception as error:
            what = f"policy_server: {type(error).__name__}: {error}"
            return self._cannot_configure(RosError(what, mend="this may be a defect: report it"))
        self._diagnostics = DiagnosticsPublisher(
            self, hardware_id=self._serving.contract.name, collect=self._statuses
        )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Accept goals."""
        with self._changing:
            assert self._serving is not None
            period_s = 1.0 / self._serving.contract.control_rate_hz
            self._control_timer = self._steady_timer(period_s, self._goals.tick)
            self._goals.activate(self._serving)
        # A search through everything that PyTorch brought along takes 80 ms: more than a period.
        # What exists now stays, and is left alone while goals may run.
        gc.freeze()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """End the running goal and reject new ones."""
        self._stop_serving("the server was deactivated")
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Leave the topics and let go of the policy."""
        self._release("the server was cleaned up")
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Leave for good."""
        self._release("the server shuts down")
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        """After a defect in a transition: back to unconfigured."""
        self._release("a transition failed")
        return TransitionCallbackReturn.SUCCESS

    def _cannot_configure(self, error: FastVLAError) -> TransitionCallbackReturn:
        self._failure = error
        # While starting it is raised instead, and whoever made the node says it once.
        if not self._starting:
            self.get_logger().error(f"cannot be configured: {error}")
        return TransitionCallbackReturn.FAILURE

    def _load(self) -> Serving:
        parameters = read_parameters(self)
        contract = load_contract(parameters.contract)
        worker = self._load_in_time(parameters, contract)
        bridge = StreamBridge(contract)
        links = ServerLinks(
            self,
            bridge,
            on_data=self._goals.on_data,
            on_outcome=self._goals.on_outcome,
            on_guard=self._goals.on_guard,
        )
        return Serving(
            parameters=parameters,
            contract=contract,
            bridge=bridge,
            worker=worker,
            links=links,
        )

    def _load_worker(
        self, parameters: ServerParameters, contract: RobotContract
    ) -> InferenceWorker:
        policy = load_policy(parameters, contract=contract)
        worker = InferenceWorker(policy)
        try:
            check_merge(parameters.chunk_merge, conditionings=worker.conditionings)
            latency_s = warm_up(worker, contract=contract)
        except BaseException:
            worker.close()
            raise
        self.get_logger().info(
            f"'{parameters.checkpoint}' ({how_it_is_served(parameters, policy)}) is loaded "
            f"for '{contract.name}': {latency_s * 1e3:.0f} ms per inference"
        )
        return worker

    def _load_in_time(
        self, parameters: ServerParameters, contract: RobotContract
    ) -> InferenceWorker:
        return self._loader.load(
            lambda: self._load_worker(parameters, contract),
            timeout_s=parameters.load_timeout_s,
            discard=InferenceWorker.close,
        )

    def _on_load_checkpoint(self, request: Any, response: Any) -> Any:
        try:
            self._exchange(request.checkpoint_id)
        # Whatever a checkpoint's files raise is the answer to who asked for it.
        except Exception as error:
            known = isinstance(error, FastVLAError)
            response.success = False
            response.message = str(error) if known else f"{type(error).__name__}: {error}"
            return response
        response.success, response.checkpoint_id = True, request.checkpoint_id
        response.message = f"'{request.checkpoint_id}' is loaded"
        return response

    def _exchange(self, checkpoint: str) -> None:
        serving = self._inactive()
        parameters = replace(serving.parameters, checkpoint=checkpoint)
        # Not under the lock: a transition must not wait for a checkpoint.
        worker = self._load_in_time(parameters, serving.contract)
        with self._changing:
            try:
                still = self._inactive()
            except RosError:
                worker.close()
                raise
            still.worker.close()
            self._serving = replace(still, parameters=parameters, worker=worker)

    def _inactive(self) -> Serving:
        with self._changing:
            if self._serving is None or self._goals.accepting:
                raise RosError(
                    "the server is not inactive", mend="configure or deactivate it first"
                )
            return self._serving

    def _stop_serving(self, why: str) -> None:
        self._goals.deactivate(why)
        if self._control_timer is not None:
            self.destroy_timer(self._control_timer)
            self._control_timer = None
            gc.unfreeze()

    def _release(self, why: str) -> None:
        self._stop_serving(why)
        with self._diagnosing:
            serving, self._serving = self._serving, None
        if serving is None:
            return
        assert self._diagnostics is not None
        self._diagnostics.close()
        serving.links.close()
        if not serving.worker.close():
            self.get_logger().error("the policy did not return from its last inference")

    def _steady_timer(self, period_s: float, callback: Any) -> Any:
        # Periods are real time: with simulated time a paused simulation must not stop `cancel`.
        return self.create_timer(
            period_s,
            callback,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def _statuses(self) -> list[Status]:
        with self._diagnosing:
            serving = self._serving
            # Inactive, it publishes nothing at all.
            if serving is None or not self._goals.accepting:
                return []
            now_ns = self.get_clock().now().nanoseconds
            return server_statuses(self._goals.state(), bridge=serving.bridge, now_ns=now_ns)
