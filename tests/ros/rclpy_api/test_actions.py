"""Action servers and clients."""

from __future__ import annotations

import threading
import time

import pytest
from action_msgs.msg import GoalInfo, GoalStatus, GoalStatusArray
from action_msgs.srv import CancelGoal
from builtin_interfaces.msg import Time
from rclpy._rclpy_pybind11 import RCLError
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.action.graph import get_action_names_and_types
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.qos import qos_profile_action_status_default
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID

from fastvla_msgs.action import ExecuteTask

ACTION = "execute_task"


class Pair:
    """A server and a client that a pool of threads spins."""

    def __init__(self, ros, execute, **server):
        self.server_node, self.client_node = ros.node("server"), ros.node("client")
        group = ReentrantCallbackGroup()
        self.server = ActionServer(
            self.server_node, ExecuteTask, ACTION, execute, callback_group=group, **server
        )
        self.client = ActionClient(self.client_node, ExecuteTask, ACTION)
        self.executor = MultiThreadedExecutor(4, context=ros.context)
        self.executor.add_node(self.server_node)
        self.executor.add_node(self.client_node)
        assert self.client.wait_for_server(timeout_sec=5.0)

    def close(self):
        self.executor.shutdown()
        # rclpy's nodes do not destroy their actions.
        self.client.destroy()
        self.destroy_server()

    def destroy_server(self):
        if self.server is not None:
            self.server.destroy()
            self.server = None

    def wait(self, future):
        self.executor.spin_until_future_complete(future, 5.0)
        assert future.done()
        return future.result()

    def send(self, **kwargs):
        return self.wait(self.client.send_goal_async(ExecuteTask.Goal(task="pick"), **kwargs))

    def until(self, condition):
        end = time.monotonic() + 5.0
        while not condition() and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)
        assert condition()


@pytest.fixture
def pair(ros):
    made = []

    def make(execute, **server):
        made.append(Pair(ros, execute, **server))
        return made[0]

    yield make
    for one in made:
        one.close()


def accept_cancel(handle):
    return CancelResponse.ACCEPT


def until_cancelled(handle):
    # Not for ever: a test that fails before it cancels must not keep a pool's thread.
    end = time.monotonic() + 20.0
    while not handle.is_cancel_requested and time.monotonic() < end:
        time.sleep(0.005)
    handle.canceled()
    return ExecuteTask.Result(error_code=ExecuteTask.Result.CANCELED)


def test_a_goal_gives_feedback_and_a_result(pair):
    def execute(handle):
        assert handle.request.task == "pick"
        for index in range(3):
            handle.publish_feedback(ExecuteTask.Feedback(chunk_index=index))
        handle.succeed()
        return ExecuteTask.Result(outcome=ExecuteTask.Result.OUTCOME_SUCCESS)

    p, feedback = pair(execute), []
    handle = p.send(feedback_callback=lambda m: feedback.append(m.feedback.chunk_index))
    assert handle.accepted
    assert handle.stamp.sec > 0
    # Before the result: rclpy forgets the feedback's callback with it.
    p.until(lambda: feedback == [0, 1, 2])
    answer = p.wait(handle.get_result_async())
    assert answer.status == GoalStatus.STATUS_SUCCEEDED
    assert answer.result.outcome == ExecuteTask.Result.OUTCOME_SUCCESS
    p.until(lambda: handle.status == GoalStatus.STATUS_SUCCEEDED)


def test_a_goal_callback_can_reject(pair):
    p = pair(until_cancelled, goal_callback=lambda goal: GoalResponse.REJECT)
    handle = p.send()
    assert not handle.accepted


def test_a_goal_id_is_accepted_once(pair):
    p = pair(until_cancelled, cancel_callback=accept_cancel)
    first = p.send()
    assert not p.send(goal_uuid=first.goal_id).accepted
    p.wait(first.cancel_goal_async())


def test_cancelling_ends_the_goal_as_cancelled(pair):
    p = pair(until_cancelled, cancel_callback=accept_cancel)
    handle = p.send()
    result = handle.get_result_async()
    answer = p.wait(handle.cancel_goal_async())
    assert answer.return_code == CancelGoal.Response.ERROR_NONE
    assert bytes(answer.goals_canceling[0].goal_id.uuid) == bytes(handle.goal_id.uuid)
    ended = p.wait(result)
    assert ended.status == GoalStatus.STATUS_CANCELED
    assert ended.result.error_code == ExecuteTask.Result.CANCELED


def test_cancelling_is_rejected_by_default(pair):
    gate = threading.Event()

    def execute(handle):
        gate.wait(5.0)
        handle.succeed()
        return ExecuteTask.Result()

    p = pair(execute)
    handle = p.send()
    answer = p.wait(handle.cancel_goal_async())
    assert answer.goals_canceling == []
    gate.set()
    assert p.wait(handle.get_result_async()).status == GoalStatus.STATUS_SUCCEEDED


def test_a_goal_that_is_not_there_or_has_ended_cannot_be_cancelled(pair):
    def execute(handle):
        handle.succeed()
        return ExecuteTask.Result()

    p = pair(execute, cancel_callback=accept_cancel)
    handle = p.send()
    p.wait(handle.get_result_async())
    answer = p.wait(handle.cancel_goal_async())
    assert answer.return_code == CancelGoal.Response.ERROR_GOAL_TERMINATED
    client = p.client_node.create_client(CancelGoal, f"{ACTION}/_action/cancel_goal")
    assert client.wait_for_service(timeout_sec=5.0)
    unknown = GoalInfo()
    unknown.goal_id.uuid[0] = 7
    answer = p.wait(client.call_async(CancelGoal.Request(goal_info=unknown)))
    assert answer.return_code == CancelGoal.Response.ERROR_UNKNOWN_GOAL_ID


def test_no_id_cancels_every_goal(pair):
    p = pair(until_cancelled, cancel_callback=accept_cancel)
    handles = [p.send(), p.send()]
    client = p.client_node.create_client(CancelGoal, f"{ACTION}/_action/cancel_goal")
    assert client.wait_for_service(timeout_sec=5.0)
    answer = p.wait(client.call_async(CancelGoal.Request()))
    assert len(answer.goals_canceling) == 2
    for handle in handles:
        assert p.wait(handle.get_result_async()).status == GoalStatus.STATUS_CANCELED


def test_a_goal_that_waits_can_be_cancelled_before_it_runs(pair):
    waiting = []

    def execute(handle):
        assert handle.is_cancel_requested
        handle.canceled()
        return ExecuteTask.Result()

    p = pair(execute, cancel_callback=accept_cancel, handle_accepted_callback=waiting.append)
    handle = p.send()
    p.until(lambda: waiting)
    assert waiting[0].status == GoalStatus.STATUS_ACCEPTED
    p.wait(handle.cancel_goal_async())
    waiting[0].execute()
    assert p.wait(handle.get_result_async()).status == GoalStatus.STATUS_CANCELED


def test_an_exception_in_the_execute_callback_aborts_the_goal_and_is_shown(pair, capfd):
    def execute(handle):
        raise ZeroDivisionError("in the goal")

    p = pair(execute)
    handle = p.send()
    assert p.wait(handle.get_result_async()).status == GoalStatus.STATUS_ABORTED
    assert "in the goal" in capfd.readouterr().err


def test_a_goal_without_an_end_is_aborted(pair, capfd):
    p = pair(lambda handle: ExecuteTask.Result())
    handle = p.send()
    assert p.wait(handle.get_result_async()).status == GoalStatus.STATUS_ABORTED
    assert "assuming aborted" in capfd.readouterr().err


def test_impossible_ends_are_refused(pair):
    caught = []

    def execute(handle):
        try:
            handle.canceled()
        except RCLError as error:
            caught.append(error)
        handle.abort()
        return ExecuteTask.Result()

    p = pair(execute)
    handle = p.send()
    assert p.wait(handle.get_result_async()).status == GoalStatus.STATUS_ABORTED
    assert "invalid transition" in str(caught[0])


def test_the_execute_callback_may_be_a_coroutine(ros):
    """With one thread: what a blocking callback could not do."""
    server_node, client_node = ros.node("server"), ros.node("client")
    gate: Future = Future()

    async def execute(handle):
        value = await gate
        handle.succeed()
        return ExecuteTask.Result(inferences=value)

    ActionServer(server_node, ExecuteTask, ACTION, execute)
    client = ActionClient(client_node, ExecuteTask, ACTION)
    assert client.wait_for_server(timeout_sec=5.0)
    handle = ros.result(client.send_goal_async(ExecuteTask.Goal()))
    result = handle.get_result_async()
    ros.until(lambda: False, timeout_s=0.1)
    assert not result.done()
    gate.set_result(3)
    assert ros.result(result).result.inferences == 3


def test_a_result_is_kept_for_a_while_only(pair):
    def execute(handle):
        handle.succeed()
        return ExecuteTask.Result(outcome=1)

    p = pair(execute, result_timeout=1)
    handle = p.send()
    p.wait(handle.get_result_async())
    assert p.wait(handle.get_result_async()).result.outcome == 1
    p.until(lambda: p.wait(handle.get_result_async()).status == GoalStatus.STATUS_UNKNOWN)


def test_a_late_listener_sees_the_states_of_the_goals(pair):
    p = pair(until_cancelled, cancel_callback=accept_cancel)
    handle = p.send()
    seen = []
    p.client_node.create_subscription(
        GoalStatusArray, f"{ACTION}/_action/status", seen.append, qos_profile_action_status_default
    )
    p.until(lambda: seen and seen[-1].status_list)
    status = seen[-1].status_list[0]
    assert bytes(status.goal_info.goal_id.uuid) == bytes(handle.goal_id.uuid)
    p.wait(handle.cancel_goal_async())
    p.until(lambda: seen[-1].status_list[0].status == GoalStatus.STATUS_CANCELED)


def test_actions_are_on_the_graph_until_the_server_goes(pair):
    p = pair(until_cancelled)
    expected = ("/execute_task", ["fastvla_msgs/action/ExecuteTask"])
    assert expected in get_action_names_and_types(p.client_node)
    assert p.client.server_is_ready()
    p.destroy_server()
    p.until(lambda: not p.client.server_is_ready())


def test_goals_and_feedback_of_another_type_are_refused(pair):
    def execute(handle):
        with pytest.raises(TypeError):
            handle.publish_feedback(ExecuteTask.Goal())
        handle.succeed()
        return ExecuteTask.Result()

    p = pair(execute)
    with pytest.raises(TypeError):
        p.client.send_goal_async(ExecuteTask.Result())
    assert p.wait(p.send().get_result_async()).status == GoalStatus.STATUS_SUCCEEDED


def cancel(p, **info):
    client = p.client_node.create_client(CancelGoal, f"{ACTION}/_action/cancel_goal")
    assert client.wait_for_service(timeout_sec=5.0)
    return p.wait(client.call_async(CancelGoal.Request(goal_info=GoalInfo(**info))))


def ids(answer):
    return {bytes(info.goal_id.uuid) for info in answer.goals_canceling}


def test_a_stamp_cancels_every_goal_that_was_accepted_until_then(pair):
    p = pair(until_cancelled, cancel_callback=accept_cancel)
    first = p.send()
    # rcl stamps a goal a little later than its answer says.
    time.sleep(0.02)
    between = p.client_node.get_clock().now().to_msg()
    second = p.send()
    answer = cancel(p, stamp=between)
    assert ids(answer) == {bytes(first.goal_id.uuid)}
    assert p.wait(first.get_result_async()).status == GoalStatus.STATUS_CANCELED
    # An id beside the stamp is cancelled too.
    answer = cancel(p, stamp=between, goal_id=second.goal_id)
    assert ids(answer) == {bytes(second.goal_id.uuid)}
    assert p.wait(second.get_result_async()).status == GoalStatus.STATUS_CANCELED


def test_without_callbacks_goals_are_accepted_and_not_cancelled(pair):
    gate = threading.Event()

    def execute(handle):
        gate.wait(5.0)
        handle.succeed()
        return ExecuteTask.Result()

    p = pair(execute, cancel_callback=accept_cancel, goal_callback=lambda g: GoalResponse.REJECT)
    assert not p.send().accepted
    p.server.register_goal_callback(None)
    p.server.register_cancel_callback(None)
    p.server.register_handle_accepted_callback(None)
    handle = p.send()
    assert handle.accepted
    assert p.wait(handle.cancel_goal_async()).goals_canceling == []
    gate.set()
    assert p.wait(handle.get_result_async()).status == GoalStatus.STATUS_SUCCEEDED
    with pytest.raises(TypeError):
        p.server.register_execute_callback(None)


def test_deferred_goals_run_when_the_server_wants(pair):
    waiting, order = [], []

    def execute(handle):
        order.append(handle.request.task)
        handle.succeed()
        return ExecuteTask.Result()

    p = pair(execute, handle_accepted_callback=waiting.append)
    handles = [p.wait(p.client.send_goal_async(ExecuteTask.Goal(task=task))) for task in ("a", "b")]
    p.until(lambda: len(waiting) == 2)
    assert order == []
    for handle in reversed(waiting):
        handle.execute()
    for handle in handles:
        assert p.wait(handle.get_result_async()).status == GoalStatus.STATUS_SUCCEEDED
    assert sorted(order) == ["a", "b"]


def test_an_actions_parts_are_remapped_and_not_the_action(ros):
    args = ["--ros-args", "-r", "act:=other", "-r", "act/_action/feedback:=talk"]
    node = ros.node("node", cli_args=args)
    server = ActionServer(node, ExecuteTask, "act", until_cancelled)
    assert ros.until(lambda: node.count_services("/act/_action/send_goal") == 1)
    assert ros.until(lambda: node.count_publishers("/talk") == 1)
    server.destroy()


def test_an_unknown_id_beside_a_stamp_is_no_error(pair):
    p = pair(until_cancelled, cancel_callback=accept_cancel)
    unknown = UUID(uuid=[7] * 16)
    answer = cancel(p, stamp=Time(sec=1), goal_id=unknown)
    assert (answer.return_code, answer.goals_canceling) == (CancelGoal.Response.ERROR_NONE, [])
    answer = cancel(p, goal_id=unknown)
    assert answer.return_code == CancelGoal.Response.ERROR_UNKNOWN_GOAL_ID
