"""A client in real rclpy: sends a long goal, cancels it at the third feedback."""

import rclpy
from rclpy.action import ActionClient

from fastvla_msgs.action import ExecuteTask

rclpy.init()
node = rclpy.create_node("canceller")
client = ActionClient(node, ExecuteTask, "/arm/robot/execute_task")
client.wait_for_server()
feedback = []
sent = client.send_goal_async(ExecuteTask.Goal(task="long"), feedback.append)
rclpy.spin_until_future_complete(node, sent)
handle = sent.result()
result = handle.get_result_async()
while len(feedback) < 3:
    rclpy.spin_once(node)
cancelled = handle.cancel_goal_async()
rclpy.spin_until_future_complete(node, cancelled)
rclpy.spin_until_future_complete(node, result)
print(
    f"code {cancelled.result().return_code} status {result.result().status} "
    f"error {result.result().result.error_code}"
)
client.destroy()
node.destroy_node()
rclpy.shutdown()
