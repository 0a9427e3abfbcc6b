"""What is seen of a process, and what is called a leak."""

import os
import threading
import time

from fastvla_ros.bench.soak.monitor import Monitor, judge, summary
from fastvla_ros.bench.soak.proc import Usage, children, command_line, usage
from fastvla_ros.bench.soak.violations import Violations


def samples(rss_kib=lambda n: 100_000, threads=lambda n: 5, descriptors=lambda n: 9):
    return [
        Usage(
            at_s=float(n), rss_kib=rss_kib(n), threads=threads(n), descriptors=descriptors(n),
            cpu_s=0.25 * n,
        )
        for n in range(120)
    ]  # fmt: skip


def judged(found) -> list[str]:
    violations = Violations("soak", seed=0)
    judge({"node": summary(found)}, violations)
    return [violation.what for violation in violations.found]


def test_what_stays_as_it_is_passes():
    assert summary(samples())["cpu_cores"] == 0.25
    assert judged(samples()) == []


def test_a_peak_in_between_is_no_leak():
    peak = lambda n: 300_000 if 50 < n < 60 else 100_000  # noqa: E731
    assert judged(samples(rss_kib=peak)) == []
    assert summary(samples(rss_kib=peak))["rss_peak_mib"] > 290


def test_growth_beyond_one_percent_is_found():
    # Medians of the first and the last sixth are 100 samples apart.
    assert judged(samples(rss_kib=lambda n: 100_000 + 9 * n)) == []
    (what,) = judged(samples(rss_kib=lambda n: 100_000 + 11 * n))
    assert what.startswith("memory grew by 1.1")


def test_a_thread_and_a_descriptor_more_are_found():
    assert judged(samples(threads=lambda n: 5 + n // 60)) == ["5 threads became 6"]
    assert judged(samples(descriptors=lambda n: 9 + n // 60)) == ["9 descriptors became 10"]


def test_this_process_is_seen_as_it_is():
    before = usage(os.getpid(), at_s=0.0)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    read, write = os.pipe()
    held = bytearray(os.urandom(32 << 20))
    after = usage(os.getpid(), at_s=1.0)
    assert after.threads == before.threads + 1
    assert after.descriptors == before.descriptors + 2
    assert after.rss_kib - before.rss_kib > len(held) // 1024 // 2
    assert after.cpu_s >= before.cpu_s
    stop.set()
    thread.join()
    os.close(read)
    os.close(write)


def test_a_process_that_ends_is_noted(start_sleep):
    child = start_sleep()
    assert child.pid in children(os.getpid())
    # A process that has just been started has no command line for a moment.
    _until(lambda: command_line(child.pid) == ["sleep", "60"])
    with Monitor({"child": child.pid}, period_s=0.01) as monitor:
        _until(lambda: len(monitor.samples["child"]) > 2)
        child.kill()
        child.wait()
        _until(lambda: "child" in monitor.ended)


def _until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
