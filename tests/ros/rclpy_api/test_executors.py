"""Executors, callback groups, timers, tasks."""

from __future__ import annotations

import gc
import threading
import time

import pytest
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.task import Future
from std_msgs.msg import UInt32


@pytest.fixture
def pool(ros):
    executor = MultiThreadedExecutor(4, context=ros.context)
    yield executor
    executor.shutdown()


def spin_until(executor, condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.05)
    return bool(condition())


class Overlap:
    """A callback that notes how many of it run at once."""

    def __init__(self):
        self.lock, self.now, self.most, self.done = threading.Lock(), 0, 0, 0

    def __call__(self, *_):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.03)
        with self.lock:
            self.now -= 1
            self.done += 1


def test_one_group_runs_one_callback_at_a_time(ros, pool):
    node, overlap = ros.node("node"), Overlap()
    group = MutuallyExclusiveCallbackGroup()
    for _ in range(3):
        node.create_timer(0.001, overlap, callback_group=group)
    pool.add_node(node)
    assert spin_until(pool, lambda: overlap.done >= 6)
    assert overlap.most == 1


def test_a_reentrant_group_overlaps(ros, pool):
    node, overlap = ros.node("node"), Overlap()
    node.create_timer(0.001, overlap, callback_group=ReentrantCallbackGroup())
    pool.add_node(node)
    assert spin_until(pool, lambda: overlap.most >= 2)


def test_two_groups_overlap_each_other(ros, pool):
    node, overlap = ros.node("node"), Overlap()
    for _ in range(2):
        node.create_timer(0.001, overlap, callback_group=MutuallyExclusiveCallbackGroup())
    pool.add_node(node)
    assert spin_until(pool, lambda: overlap.most == 2)


def test_a_single_threaded_executor_never_overlaps(ros):
    node, overlap = ros.node("node"), Overlap()
    for _ in range(3):
        node.create_timer(0.001, overlap, callback_group=ReentrantCallbackGroup())
    assert ros.until(lambda: overlap.done >= 6)
    assert overlap.most == 1


def test_a_busy_timer_does_not_starve_the_others(ros):
    node, busy, calm = ros.node("node"), [], []
    node.create_timer(0.0, lambda: busy.append(1))
    node.create_timer(0.01, lambda: calm.append(1))
    assert ros.until(lambda: len(calm) >= 5, timeout_s=2.0)
    assert busy


def test_an_exception_in_a_pool_thread_leaves_through_spin(ros, pool):
    def fail():
        raise ZeroDivisionError

    node = ros.node("node")
    node.create_timer(0.001, fail)
    pool.add_node(node)
    with pytest.raises(ZeroDivisionError):
        spin_until(pool, lambda: False)


def test_timers_keep_their_rate(ros):
    node, ticks = ros.node("node"), []
    node.create_timer(0.02, lambda: ticks.append(time.monotonic()))
    assert ros.until(lambda: len(ticks) == 11)
    assert 0.18 <= ticks[-1] - ticks[0] <= 5.0


def test_a_timer_that_was_held_up_leaves_periods_out(ros):
    node, ticks = ros.node("node"), []
    node.create_timer(0.01, lambda: ticks.append(1))
    time.sleep(0.2)
    ros.executor.spin_once(timeout_sec=0.1)
    ros.executor.spin_once(timeout_sec=0.005)
    assert len(ticks) <= 2


def test_a_cancelled_timer_is_silent_until_it_is_reset(ros):
    node, ticks = ros.node("node"), []
    timer = node.create_timer(0.01, lambda: ticks.append(1))
    timer.cancel()
    assert timer.is_canceled()
    ros.until(lambda: False, timeout_s=0.05)
    assert ticks == []
    timer.reset()
    assert ros.until(lambda: ticks)
    assert node.destroy_timer(timer)


def test_spin_once_returns_in_time_when_there_is_nothing(ros):
    ros.node("node")
    start = time.monotonic()
    ros.executor.spin_once(timeout_sec=0.1)
    assert 0.09 <= time.monotonic() - start < 1.0
    start = time.monotonic()
    ros.executor.spin_once(timeout_sec=0)
    assert time.monotonic() - start < 0.09


def test_waiting_costs_no_processor_time(ros):
    ros.node("node")
    ros.until(lambda: False, timeout_s=0.2)
    before = time.process_time()
    ros.executor.spin_once(timeout_sec=0.5)
    assert time.process_time() - before < 0.05


def test_spin_until_future_complete_ends_with_the_future_or_in_time(ros):
    ros.node("node")
    future: Future = Future()
    start = time.monotonic()
    ros.executor.spin_until_future_complete(future, timeout_sec=0.05)
    assert time.monotonic() - start < 1.0
    threading.Timer(0.05, future.set_result, [7]).start()
    ros.executor.spin_until_future_complete(future, timeout_sec=5.0)
    assert future.result() == 7


def test_guard_conditions_run_once_per_trigger(ros):
    node, runs = ros.node("node"), []
    guard = node.create_guard_condition(lambda: runs.append(threading.current_thread()))
    threading.Thread(target=guard.trigger).start()
    assert ros.until(lambda: runs)
    ros.until(lambda: False, timeout_s=0.05)
    assert runs == [threading.main_thread()]


def test_tasks_run_and_coroutines_wait_for_futures(ros):
    ros.node("node")
    gate: Future = Future()
    order = []

    async def work(name):
        order.append(f"{name} starts")
        value = await gate
        order.append(f"{name} got {value}")
        return value + 1

    task = ros.executor.create_task(work, "task")
    ros.executor.create_task(lambda: order.append("plain"))
    ros.until(lambda: False, timeout_s=0.05)
    assert sorted(order) == ["plain", "task starts"]
    gate.set_result(1)
    assert ros.result(task) == 2
    assert order[-1] == "task got 1"


def test_an_exception_in_a_task_leaves_through_spin(ros):
    ros.node("node")

    async def fail():
        raise ZeroDivisionError

    ros.executor.create_task(fail)
    with pytest.raises(ZeroDivisionError):
        ros.until(lambda: False)


def test_futures_end_once_and_tell_their_callbacks():
    future: Future = Future()
    seen = []
    future.add_done_callback(lambda done: seen.append(done.result()))
    future.set_result(1)
    future.add_done_callback(lambda done: seen.append(done.result()))
    assert seen == [1, 1]
    failed: Future = Future()
    failed.set_exception(ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        failed.result()
    cancelled: Future = Future()
    cancelled.cancel()
    assert cancelled.cancelled()


def test_a_node_moves_to_the_executor_that_takes_it(ros):
    node, ticks = ros.node("node"), []
    node.create_timer(0.01, lambda: ticks.append(1))
    other = SingleThreadedExecutor(context=ros.context)
    other.add_node(node)
    assert node.executor is other
    assert node not in ros.executor.get_nodes()
    ros.until(lambda: False, timeout_s=0.05)
    assert ticks == []
    other.shutdown()


def test_a_rate_sleeps_for_its_period(ros):
    node = ros.node("node")
    rate = node.create_rate(50.0)
    done = []

    def sleeper():
        start = time.monotonic()
        for _ in range(5):
            rate.sleep()
        done.append(time.monotonic() - start)

    thread = threading.Thread(target=sleeper)
    thread.start()
    assert ros.until(lambda: done)
    thread.join()
    assert 0.07 <= done[0] <= 5.0
    assert node.destroy_rate(rate)


def test_an_exception_that_nobody_asks_for_is_printed(capfd):
    future: Future = Future()
    future.set_exception(ValueError("lost"))
    del future
    gc.collect()
    text = capfd.readouterr().err
    assert "never retrieved" in text
    assert "lost" in text


def test_entities_can_be_made_and_destroyed_inside_callbacks(ros):
    node, got = ros.node("node"), []

    def replace():
        got.append(1)
        node.destroy_timer(timers.pop())
        if len(got) < 3:
            timers.append(node.create_timer(0.01, replace))

    timers = [node.create_timer(0.01, replace)]
    assert ros.until(lambda: len(got) == 3)
    ros.spin(0.1)
    assert got == [1, 1, 1]


def test_a_subscription_that_destroys_itself_gets_one_message(ros):
    node, got = ros.node("node"), []
    publisher = node.create_publisher(UInt32, "count", 10)

    def take(message):
        got.append(message.data)
        node.destroy_subscription(subscription)

    subscription = node.create_subscription(UInt32, "count", take, 10)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    for number in range(3):
        publisher.publish(UInt32(data=number))
    assert ros.until(lambda: got)
    ros.spin(0.1)
    assert got == [0]


def test_a_node_can_be_destroyed_inside_its_callback(ros):
    node, calls = ros.node("node"), []

    def end():
        calls.append(1)
        ros.destroy(node)

    node.create_timer(0.01, end)
    assert ros.until(lambda: calls)
    ros.spin(0.1)
    assert calls == [1]


def test_two_executors_spin_in_threads_of_their_own(ros):
    counts = {}
    executors, threads = [], []
    for name in ("a", "b"):
        executor = SingleThreadedExecutor(context=ros.context)
        node = ros.node(name)
        executor.add_node(node)
        counts[name] = []
        node.create_timer(0.01, lambda name=name: counts[name].append(threading.get_ident()))
        threads.append(threading.Thread(target=executor.spin))
        executors.append(executor)
    for thread in threads:
        thread.start()
    assert wait_until(lambda: all(len(seen) >= 5 for seen in counts.values()))
    for executor in executors:
        executor.shutdown()
    for thread in threads:
        thread.join(10.0)
    assert set(counts["a"]).isdisjoint(counts["b"])


def wait_until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


def test_a_rate_can_be_slept_on_in_a_callback_of_a_pool(ros, pool):
    node, slept = ros.node("node"), []
    rate = node.create_rate(100.0)

    def sleep():
        timer.cancel()
        rate.sleep()
        slept.append(1)

    timer = node.create_timer(0.01, sleep)
    pool.add_node(node)
    assert spin_until(pool, lambda: slept)


def test_an_executor_can_be_shut_down_by_its_own_callback(ros, pool):
    node, done = ros.node("node"), []

    def end():
        timer.cancel()
        pool.shutdown()
        done.append(1)

    timer = node.create_timer(0.01, end)
    pool.add_node(node)
    pool.spin()
    assert wait_until(lambda: done)


def test_a_future_that_is_spun_for_leaves_the_node_where_it_was(ros):
    node = ros.node("node")
    future: Future = Future()
    future.set_result(1)
    rclpy.spin_until_future_complete(node, future, ros.executor, 0.1)
    assert node in ros.executor.get_nodes()
    rclpy.spin_once(node, executor=ros.executor, timeout_sec=0)
    assert node not in ros.executor.get_nodes()
