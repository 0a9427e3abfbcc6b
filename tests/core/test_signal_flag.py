"""A flag that a handler sets, and a second handler inside the first."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from fastvla_core.signal_flag import SignalFlag


def test_it_ends_the_wait_and_stays_set():
    flag = SignalFlag()
    assert not flag.wait(0.01)
    flag.set()
    flag.set()
    assert flag.is_set()
    assert flag.wait(10)
    assert flag.wait(10)


def test_signals_within_a_handler_do_not_stop_the_process():
    program = (
        "import os, signal\n"
        "from fastvla_core.signal_flag import SignalFlag\n"
        "flag = SignalFlag()\n"
        "signal.signal(signal.SIGINT, lambda *_: flag.set())\n"
        "print('ready', flush=True)\n"
        "while not flag.wait(0.2):\n"
        "    pass\n"
        "for _ in range(20000):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "print('done', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == "ready\n"
        end = time.monotonic() + 60
        while it.poll() is None and time.monotonic() < end:
            for _ in range(100):
                it.send_signal(signal.SIGINT)
            time.sleep(0.001)
        it.kill()
        assert it.stdout.read() == "done\n"
