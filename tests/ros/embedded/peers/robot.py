"""One node with a bit of everything; runs on the embedded runtime and on real ROS 2."""

import importlib.util
import sys
import time

if importlib.util.find_spec("rclpy") is None:
    from fastvla_ros.runtime import ensure_ros

    ensure_ros()

import contextlib

import rclpy
from control_msgs.action import ParallelGripperCommand
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    qos_profile_sensor_data,
)
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool

from fastvla_msgs.action import ExecuteTask


class Robot(LifecycleNode):
    """Publishes, serves, acts."""

    def __init__(self):
        super().__init__("robot", namespace="/arm")
        self.declare_parameter("speed", 1.5)
        self.declare_parameter("joints", ["joint1", "joint2"])
        limits = IntegerRange(from_value=1, to_value=9, step=2)
        described = ParameterDescriptor(description="at most", integer_range=[limits])
        self.declare_parameter("limit", 3, described)
        self.declare_parameter("model", "arm6", ParameterDescriptor(read_only=True))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.mode = self.create_publisher(String, "mode", latched)
        self.mode.publish(String(data="ready"))
        self.state = self.create_publisher(JointState, "joint_states", 10)
        self.camera = self.create_publisher(Image, "front", qos_profile_sensor_data)
        self.echo = self.create_publisher(String, "echo", 10)
        self.create_subscription(String, "say", self.echo.publish, 10)
        self.create_subscription(Image, "look", self.look, qos_profile_sensor_data)
        self.create_timer(0.1, self.tick)
        self.create_service(SetBool, "~/set", self.set)
        ActionServer(
            self,
            ExecuteTask,
            "~/execute_task",
            self.execute,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )
        ActionServer(self, ParallelGripperCommand, "~/gripper", self.grip)

    def tick(self):
        stamp = self.get_clock().now().to_msg()
        state = JointState(name=["joint1", "joint2"], position=[0.5, -1.25])
        state.header.stamp = stamp
        self.state.publish(state)
        image = Image(height=480, width=640, encoding="rgb8", step=1920)
        image.data.frombytes(bytes(range(256)) * 3600)
        self.camera.publish(image)

    def look(self, image):
        total = sum(bytes(image.data[:100]))
        self.echo.publish(String(data=f"{image.width}x{image.height} {total} {len(image.data)}"))

    def set(self, request, response):
        response.success, response.message = request.data, f"got {request.data}"
        return response

    def execute(self, handle):
        for index in range(2000 if handle.request.task == "long" else 3):
            if handle.is_cancel_requested:
                handle.canceled()
                return ExecuteTask.Result(error_code=ExecuteTask.Result.CANCELED)
            handle.publish_feedback(ExecuteTask.Feedback(chunk_index=index, progress=index / 4))
            time.sleep(0.05)
        handle.succeed()
        return ExecuteTask.Result(outcome=ExecuteTask.Result.OUTCOME_SUCCESS, elapsed_s=0.5)

    def grip(self, handle):
        handle.succeed()
        return ParallelGripperCommand.Result(state=handle.request.command, reached_goal=True)

    def on_configure(self, state):
        return TransitionCallbackReturn.SUCCESS


def main() -> None:
    rclpy.init(args=sys.argv)
    node = Robot()
    executor = MultiThreadedExecutor(4)
    executor.add_node(node)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()


main()
