"""Who waits for the wire: an idle executor itself, and a thread of its own when none is idle."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter

import pytest
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import UInt32
from std_srvs.srv import Trigger

from fastvla_core.errors import RosError
from fastvla_ros.embedded.wire import waitset as wire
from fastvla_ros.embedded.wire.waitset import WireAlarm

STANDING = "dds-waitset"
# Long enough that only a lost wake-up or a deadlock takes it.
LONG_S = 20.0
# Longer than in real life: on a busy machine a test is away from the wire for some milliseconds.
VACANT_NS = 50_000_000


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """The standing thread of a context that is made now steps in after `VACANT_NS`."""
    monkeypatch.setattr(wire, "VACANT_NS", VACANT_NS)


class Tap:
    """Messages on a topic, and the names of the threads that took them from the wire."""

    def __init__(self, ros, node, name="tap"):
        self.publisher = node.create_publisher(UInt32, name, 10)
        self.messages, self.threads, self.sent = [], [], 0
        self.taken = threading.Event()
        self._subscription = node.create_subscription(UInt32, name, self.messages.append, 10)
        take = self._subscription._entity.take

        def watched():
            self.threads.append(threading.current_thread().name)
            samples = take()
            self.taken.set()
            return samples

        self._subscription._entity.take = watched
        assert ros.until(lambda: self.publisher.get_subscription_count() == 1)

    def send(self):
        self.taken.clear()
        self.sent += 1
        self.publisher.publish(UInt32())

    def exchange(self, ros):
        """One message, from another thread while this one waits."""
        assert ros.until(lambda: len(self.messages) == self.sent)
        before = self.sent
        sender = threading.Timer(0.01, self.send)
        sender.start()
        assert ros.until(lambda: len(self.messages) > before)
        sender.join()
        return self.threads[-1]


def lead(ros, tap):
    """Have this thread wait for the wire: the standing thread leaves it at the next event."""
    me = threading.current_thread().name
    assert any(tap.exchange(ros) == me for _ in range(50))


def test_an_idle_executor_takes_its_messages_itself(ros):
    tap = Tap(ros, ros.node("node"))
    lead(ros, tap)
    # Not every time where the machine is very busy.
    takers = Counter(tap.exchange(ros) for _ in range(20))
    assert takers[threading.current_thread().name] > 5


def test_samples_are_taken_while_the_only_executor_is_busy(ros):
    node = ros.node("node")
    tap, seen = Tap(ros, node), []
    lead(ros, tap)

    def work():
        timer.cancel()
        for _ in range(2):
            tap.send()
            seen.append((tap.taken.wait(LONG_S), tap.threads[-1]))

    timer = node.create_timer(0.03, work)
    assert ros.until(lambda: seen, LONG_S)
    assert seen == [(True, STANDING)] * 2
    # It leaves the wire to the executor again.
    lead(ros, tap)


def test_samples_are_taken_after_the_last_spin(ros):
    tap = Tap(ros, ros.node("node"))
    lead(ros, tap)
    tap.send()
    assert tap.taken.wait(LONG_S)
    assert tap.threads[-1] == STANDING


def test_an_executor_with_a_fast_timer_is_served_by_the_standing_thread(ros):
    node = ros.node("node")
    tap = Tap(ros, node)
    lead(ros, tap)
    timer = node.create_timer(0.005, int)
    # What waits just now may still be this thread.
    ros.spin(0.3)
    assert {tap.exchange(ros) for _ in range(10)} == {STANDING}
    node.destroy_timer(timer)
    lead(ros, tap)


def test_a_short_absence_wakes_nobody(ros):
    tap = Tap(ros, ros.node("node"))
    lead(ros, tap)
    waitset = ros.context.waitset
    alarm, woken = waitset._vacancy, []
    wait = alarm.wait
    alarm.wait = lambda: (wait(), woken.append(1))
    # The first one ends the wait that began before the line above.
    time.sleep(VACANT_NS * 3e-9)
    lead(ros, tap)
    absences = 0
    for _ in range(200):
        before, start_ns = len(woken), time.monotonic_ns()
        ros.executor.create_task(lambda: None)
        ros.executor.spin_once(timeout_sec=0)
        if time.monotonic_ns() - start_ns < VACANT_NS / 4:
            absences += 1
            assert len(woken) == before
        ros.executor.spin_once(timeout_sec=0.0001)
    assert absences
    waits = []
    for _ in range(5):
        before = len(woken)
        ros.executor.spin_once(timeout_sec=2 * VACANT_NS * 1e-9)
        waits.append(len(woken) - before)
    assert waits.count(0) > 1


def test_somebody_who_blocks_has_the_wire_served_at_once(ros, ros_with, monkeypatch):
    other = ros_with()
    node, found = ros.node("node"), []
    tap, client = Tap(ros, node), node.create_client(Trigger, "late")
    # Not after a while only, which never ends here.
    monkeypatch.setattr(ros.context.waitset._vacancy, "start", lambda: None)
    lead(ros, tap)

    def work():
        timer.cancel()
        serve = threading.Timer(
            0.05, lambda: other.node("server").create_service(Trigger, "late", lambda q, r: r)
        )
        serve.start()
        start_s = time.monotonic()
        found.append(client.wait_for_service(LONG_S))
        found.append(time.monotonic() - start_s < LONG_S / 2)
        serve.join()

    timer = node.create_timer(0.03, work)
    assert ros.until(lambda: found, LONG_S)
    assert found == [True, True]


def leading_alarm(ros, tap):
    """An alarm that waits for the wire; closed, it does no more."""
    alarm = WireAlarm(ros.context.waitset)
    while not alarm._leads:
        tap.send()
        alarm.wait(0.1)
    return alarm


def test_an_alarm_on_the_wire_that_rings_before_its_wait_ends_that_wait(ros):
    alarm = leading_alarm(ros, Tap(ros, ros.node("node")))
    start_s = time.monotonic()
    alarm.ring()
    alarm.wait(LONG_S)
    assert time.monotonic() - start_s < LONG_S / 2
    alarm.close()


def test_who_leaves_the_wire_tells_the_next_in_the_line(ros):
    tap = Tap(ros, ros.node("node"))
    first, second = leading_alarm(ros, tap), WireAlarm(ros.context.waitset)
    waiter = threading.Thread(target=second.wait, args=(None,), daemon=True)
    waiter.start()
    while not ros.context.waitset._line[1:]:
        time.sleep(0.001)
    first.close()
    waiter.join(LONG_S)
    assert not waiter.is_alive()
    second.wait(0.0)
    assert second._leads
    second.close()


def spinning(executor):
    thread = threading.Thread(target=executor.spin)
    thread.start()
    return thread


def test_several_executors_get_theirs_whichever_is_busy_from_the_standing_thread(ros):
    node, other = ros.node("node"), Node("other", context=ros.context)
    tap = Tap(ros, node)
    lead(ros, tap)
    second = SingleThreadedExecutor(context=ros.context)
    second.add_node(other)
    echoes = Tap(ros, node, "echo")
    other.create_subscription(UInt32, "tap", lambda _: echoes.send(), 10)
    release = threading.Event()

    def work():
        timer.cancel()
        tap.send()
        assert echoes.taken.wait(LONG_S)
        release.set()

    thread = spinning(second)
    assert ros.until(lambda: tap.publisher.get_subscription_count() == 2)
    timer = node.create_timer(0.03, work)
    assert ros.until(release.is_set, LONG_S)
    assert echoes.threads == [STANDING]
    # In turns, each of the two is woken by it.
    assert {tap.exchange(ros) for _ in range(10)} == {STANDING}
    second.shutdown()
    thread.join(LONG_S)
    assert not thread.is_alive()
    other.destroy_node()
    # The one that is left waits for the wire itself again.
    lead(ros, tap)


@pytest.mark.parametrize("kind", [SingleThreadedExecutor, MultiThreadedExecutor])
def test_a_call_from_another_thread_is_answered(ros, kind):
    # So that the other one is alone.
    ros.executor.shutdown()
    node = Node("node", context=ros.context)
    node.create_service(Trigger, "echo", lambda q, r: Trigger.Response(message="yes"))
    client = node.create_client(Trigger, "echo")
    executor = kind(context=ros.context)
    executor.add_node(node)
    thread = spinning(executor)
    assert client.wait_for_service(LONG_S)
    for _ in range(50):
        assert client.call(Trigger.Request(), LONG_S).message == "yes"
    executor.shutdown()
    thread.join(LONG_S)
    assert not thread.is_alive()
    node.destroy_node()


def test_whatever_other_threads_do_ends_the_wait_of_an_executor_on_the_wire(ros):
    node, done = ros.node("node"), Future()
    lead(ros, Tap(ros, node))
    guard = node.create_guard_condition(lambda: done.set_result(None))
    node.create_timer(1000.0, lambda: None)
    for act in (
        lambda: ros.executor.create_task(int),
        guard.trigger,
        lambda: node.create_timer(0.1, int),
    ):
        threading.Timer(0.1, act).start()
        start_s = time.monotonic()
        ros.executor.spin_once(timeout_sec=LONG_S)
        assert time.monotonic() - start_s < LONG_S
    assert done.done()
    waits, wait = [], ros.context.waitset.wait
    ros.context.waitset.wait = lambda limit_ns: waits.append(1) or wait(limit_ns)
    ros.spin(0.3)
    assert len(waits) < 50
    threading.Timer(0.1, ros.context.try_shutdown).start()
    with pytest.raises(ExternalShutdownException):
        ros.spin(LONG_S)


def test_a_failing_handler_leaves_through_spin(ros):
    tap = Tap(ros, ros.node("node"))
    lead(ros, tap)

    def fail():
        raise ZeroDivisionError(threading.current_thread().name)

    tap._subscription._entity.take = fail
    threading.Timer(0.01, tap.send).start()
    with pytest.raises(RosError) as caught:
        ros.until(lambda: False)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.fixture
def alarm_signal():
    """Sets what SIGALRM does; it comes once, soon."""
    before = signal.getsignal(signal.SIGALRM)

    def expect(handler):
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    yield expect
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_runs_its_handler_while_the_main_thread_waits_for_the_wire(ros, alarm_signal):
    lead(ros, Tap(ros, ros.node("node")))
    done: Future = Future()
    start_s = time.monotonic()
    alarm_signal(lambda: done.set_result(None))
    ros.executor.spin_until_future_complete(done, LONG_S)
    assert done.done()
    assert time.monotonic() - start_s < LONG_S / 2


def test_a_signal_handler_may_raise_and_the_executor_spins_on(ros, alarm_signal):
    tap = Tap(ros, ros.node("node"))
    lead(ros, tap)

    def interrupt():
        raise KeyboardInterrupt

    alarm_signal(interrupt)
    with pytest.raises(KeyboardInterrupt):
        ros.executor.spin_once(timeout_sec=LONG_S)
    lead(ros, tap)


def test_a_signal_handler_may_close_everything(ros, alarm_signal):
    node = ros.node("node")
    # Events, at which the standing thread leaves the wire to this one.
    node.create_timer(0.025, Tap(ros, node).send)
    alarm_signal(ros.close)
    ros.executor.spin()
    assert not ros.context.ok()


def test_a_program_keeps_its_own_pipe_for_signals(ros, alarm_signal):
    tap = Tap(ros, ros.node("node"))
    lead(ros, tap)
    inbox, outbox = socket.socketpair()
    outbox.setblocking(False)
    inbox.settimeout(LONG_S)
    done: Future = Future()
    with inbox, outbox:
        before = signal.set_wakeup_fd(outbox.fileno())
        try:
            alarm_signal(lambda: done.set_result(None))
            ros.executor.spin_until_future_complete(done, LONG_S)
            assert inbox.recv(1) == bytes([signal.SIGALRM])
            tap.exchange(ros)
            assert signal.set_wakeup_fd(outbox.fileno()) == outbox.fileno()
        finally:
            signal.set_wakeup_fd(before)
    assert done.done()


def test_a_role_that_nobody_gives_back_does_not_hold_up_the_end(ros):
    tap = Tap(ros, ros.node("node"))
    thread = threading.Thread(target=leading_alarm, args=(ros, tap))
    thread.start()
    thread.join()
    ros.close()
    assert not ros.context.ok()
