"""Runs one node's executable as a child of `fastvla bringup`: it ends when its parent does."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Arguments: the parent's process id, the executable's name, then its own."""
    parent, executable, *arguments = sys.argv[1:]
    end_with(int(parent))
    module = importlib.import_module(f"fastvla_ros.nodes.{executable}")
    return int(module.main([executable, *arguments]))


def end_with(parent: int) -> None:
    """Be interrupted when the parent is gone, however it ended: nobody else would stop us."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
