"""Calls a service that never answers: spinning for the answer, or blocked while a thread spins."""

import contextlib
import sys
import threading

from fastvla_ros.runtime import ensure_ros

ensure_ros()

import rclpy  # noqa: E402
from rclpy._rclpy_pybind11 import RCLError  # noqa: E402
from rclpy.callback_groups import ReentrantCallbackGroup  # noqa: E402
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor  # noqa: E402
from rclpy.task import Future  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402


async def never(request, response):
    print("asked", flush=True)
    await Future()


def start_threads(executor):
    """Start the pool's threads: one that Ctrl-C finds half started would never be joined."""
    meeting = threading.Barrier(2)
    tasks = [executor.create_task(meeting.wait) for _ in range(2)]
    for task in tasks:
        executor.spin_until_future_complete(task)


def spin(executor):
    # How a spinning thread ends with the context.
    with contextlib.suppress(ExternalShutdownException, RCLError):
        executor.spin()


def main() -> None:
    rclpy.init(args=[])
    node = rclpy.create_node("caller")
    group = ReentrantCallbackGroup()
    node.create_service(Trigger, "never", never, callback_group=group)
    client = node.create_client(Trigger, "never", callback_group=group)
    client.wait_for_service()
    executor = MultiThreadedExecutor(2)
    executor.add_node(node)
    start_threads(executor)
    try:
        if "blocked" in sys.argv:
            threading.Thread(target=spin, args=(executor,), daemon=True).start()
            client.call(Trigger.Request())
        else:
            executor.spin_until_future_complete(client.call_async(Trigger.Request()))
        print("returned", flush=True)
    except KeyboardInterrupt:
        print("KeyboardInterrupt", flush=True)
    executor.shutdown()
    rclpy.try_shutdown()
    print("end", flush=True)


main()
