"""The simulated table-top robot as a ROS node: sensors out, commands and gripper goals in."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock as RosClock
from rclpy.clock import ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String

from fastvla_core.errors import FastVLAError, RosError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.sim import TabletopSim
from fastvla_msgs.msg import TaskOutcome
from fastvla_msgs.srv import ResetScene
from fastvla_ros.bridge.classes import message_class
from fastvla_ros.bridge.images import camera_message
from fastvla_ros.bridge.joints import to_time
from fastvla_ros.diagnostics.status import DiagnosticsPublisher
from fastvla_ros.nodes.sim_robot_arm import ArmInput
from fastvla_ros.nodes.sim_robot_diagnostics import SimDiagnostics
from fastvla_ros.nodes.sim_robot_gripper import GripperServer, GripperState
from fastvla_ros.nodes.sim_robot_loop import SimLoop, SimRates, Verdict, check_contract

LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_CLOCK_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_RESET_TIMEOUT_S = 5.0
_LOOK_PERIOD_S = 1.0
# A clock that starts at zero cannot be told from one that was never set.
_CLOCK_START_NS = 1_000_000_000


class SimRobotNode(Node):
    """Publishes what the simulated robot measures, obeys its commands, judges the current task.

    Parameters:
        contract: Robot contract, a name or a file.
        seed: Scene at the start; `~/reset` sets up another one.
        camera_rate_hz, scene_rate_hz, joint_rate_hz: How often things are measured.
        publish_clock: Publish `/clock` and stamp with simulated time that starts at 1 s.
        time_scale: How fast simulated time goes by; other than 1 needs `publish_clock`.

    Attributes:
        loop: The simulation.
        failure: What ended the simulation against its will, or None.

    Raises:
        FastVLAError: the contract is not the simulated robot's, or the simulator cannot start.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("sim_robot", **options)
        self.failure: BaseException | None = None
        source = self.declare_parameter("contract", "tabletop").value
        contract = load_contract(source)
        policy_size = contract.policy_cameras[0].width
        check_contract(contract, image_size=policy_size)
        seed = int(self.declare_parameter("seed", 0).value)
        camera_hz = float(self.declare_parameter("camera_rate_hz", 30.0).value)
        scene_hz = float(self.declare_parameter("scene_rate_hz", 10.0).value)
        joint_hz = float(self.declare_parameter("joint_rate_hz", 100.0).value)
        publish_clock = bool(self.declare_parameter("publish_clock", False).value)
        time_scale = float(self.declare_parameter("time_scale", 1.0).value)
        if time_scale != 1.0 and not publish_clock:
            raise RosError(
                f"sim_robot: time_scale is {time_scale}, but the other nodes use the wall clock",
                mend="set publish_clock, and use_sim_time for every node (use_sim_time:=true)",
            )
        self._contract, self._task = contract, ""
        self._gripper_state = GripperState(position=0.0, velocity=0.0)
        self._make_publishers(publish_clock=publish_clock)
        rates = {c.name: camera_hz if c.policy else scene_hz for c in contract.cameras}
        self.loop = SimLoop(
            contract,
            listener=self,
            rates=SimRates(
                joints_hz=joint_hz,
                cameras_hz={name: hz for name, hz in rates.items() if hz > 0},
                time_scale=time_scale,
            ),
            make_sim=lambda: TabletopSim(image_size=policy_size),
            seed=seed,
            epoch_ns=lambda: (
                _CLOCK_START_NS if publish_clock else self.get_clock().now().nanoseconds
            ),
            follow_wall=not publish_clock,
        )
        self.loop.start()
        self._make_inputs(source)
        DiagnosticsPublisher(
            self, hardware_id=contract.name, collect=SimDiagnostics(self.loop).statuses
        )
        self.get_logger().info(f"simulated robot '{contract.name}' runs, scene of seed {seed}")

    def _make_publishers(self, *, publish_clock: bool) -> None:
        contract = self._contract
        self._clock_publisher = (
            self.create_publisher(Clock, "/clock", _CLOCK_QOS) if publish_clock else None
        )
        self._joints = self.create_publisher(JointState, contract.joint_states.topic, 10)
        self._images = {
            camera.name: self.create_publisher(
                message_class(camera.message_type), camera.topic, qos_profile_sensor_data
            )
            for camera in contract.cameras
        }
        self._outcome = self.create_publisher(TaskOutcome, "task_outcome", LATCHED)

    def _make_inputs(self, source: str) -> None:
        contract = self._contract
        inputs = MutuallyExclusiveCallbackGroup()
        self._arm = ArmInput(
            self,
            contract,
            source=source,
            drive=self.loop.drive,
            now_ns=self.loop.stamp_ns,
            group=inputs,
        )
        self.create_subscription(
            String, "current_task", self._on_task, LATCHED, callback_group=inputs
        )
        self.create_timer(
            _LOOK_PERIOD_S, self._forget_lost_task, callback_group=inputs,
            clock=RosClock(clock_type=ClockType.STEADY_TIME),
        )  # fmt: skip
        self.create_service(ResetScene, "~/reset", self._on_reset)
        self._gripper = None
        if contract.gripper is not None:
            name = contract.gripper.name
            self._gripper = GripperServer(
                self,
                contract.gripper,
                move=lambda position: self.loop.drive.move_gripper(
                    name, position, now_ns=self.loop.stamp_ns()
                ),
                measured=lambda: self._gripper_state,
            )

    def prepare_shutdown(self) -> None:
        """End the gripper's goal, while the executor can still send its result."""
        if self._gripper is not None:
            self._gripper.interrupt()

    def destroy_node(self) -> None:
        """Stop the simulation, then leave the graph."""
        if self._gripper is not None:
            self._gripper.destroy()
        self.loop.close()
        super().destroy_node()

    # -- what comes in -------------------------------------------------------------------------

    def _on_task(self, message: String) -> None:
        self._task = message.data
        self.loop.judge(self._task)

    def _forget_lost_task(self) -> None:
        """End the judging of a task whose policy server was killed: it cannot say so itself."""
        if self._task and not self.count_publishers(self.resolve_topic_name("current_task")):
            self._task = ""
            self.loop.judge("")

    def _on_reset(self, request: Any, response: Any) -> Any:
        try:
            self.loop.reset(int(request.seed)).result(timeout=_RESET_TIMEOUT_S)
            response.success, response.message = True, f"scene of seed {request.seed}"
        except (FastVLAError, TimeoutError) as error:
            response.success, response.message = False, f"{error}" or "the simulation hangs"
        return response

    # -- SimListener: called from the simulation's thread --------------------------------------

    def on_clock(self, stamp_ns: int) -> None:
        """Publish `/clock` when this node is the source of time."""
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=to_time(stamp_ns)))

    def on_joints(
        self, stamp_ns: int, positions: NDArray[np.float32], velocities: NDArray[np.float32]
    ) -> None:
        """Publish `joint_states`."""
        self._gripper_state = GripperState(
            position=float(positions[-1]), velocity=float(velocities[-1])
        )
        self._joints.publish(
            JointState(
                header=self._header(stamp_ns, self._contract.frame_id),
                name=list(self._contract.driver_names.values()),
                position=array.array("d", positions),
                velocity=array.array("d", velocities),
            )
        )

    def on_image(self, camera: str, stamp_ns: int, image: NDArray[Any]) -> None:
        """Publish one picture, by the camera's transport."""
        message = camera_message(
            self._contract.camera(camera),
            image,
            stamp=to_time(stamp_ns),
            frame_id=f"{camera}_optical_frame",
        )
        self._images[camera].publish(message)

    def on_verdict(self, stamp_ns: int, verdict: Verdict) -> None:
        """Publish `task_outcome`."""
        codes = {None: TaskOutcome.UNKNOWN, True: TaskOutcome.SUCCESS, False: TaskOutcome.FAILURE}
        self._outcome.publish(
            TaskOutcome(
                header=self._header(stamp_ns, self._contract.frame_id),
                task=verdict.task,
                outcome=codes[verdict.outcome],
                detail=verdict.detail,
            )
        )

    def on_failure(self, error: BaseException) -> None:
        """Remember it: whoever runs the nodes stops them and says why."""
        self.failure = error

    def _header(self, stamp_ns: int, frame_id: str) -> Header:
        return Header(stamp=to_time(stamp_ns), frame_id=frame_id)
