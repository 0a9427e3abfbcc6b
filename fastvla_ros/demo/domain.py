"""A ROS domain id that nobody else on this machine uses."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fastvla_core.errors import RosError

# Beyond 101 the ports of a domain reach into Linux's range for outgoing connections.
DOMAINS = range(1, 102)
_LOOK_AT_PARTICIPANTS = 4


@contextlib.contextmanager
def reserve_domain() -> Iterator[int]:
    """A free domain id, kept from other demos on this machine until the block is left.

    Raises:
        RosError: every domain id is in use.
    """
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        lock = _lock(domain)
        if lock is None:
            continue
        try:
            if _is_silent(domain):
                yield domain
                return
        finally:
            lock.close()
    raise RosError(
        f"every ROS domain id from {DOMAINS[0]} to {DOMAINS[-1]} is in use on this machine",
        mend="stop nodes that are not needed any more",
    )


def keep_to_this_machine(domain: int) -> None:
    """Have this process and its children talk on `domain`, over the loopback interface only."""
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"


def _lock(domain: int) -> IO[bytes] | None:
    path = Path(tempfile.gettempdir()) / f"fastvla-ros-domain-{domain}.lock"
    try:
        handle = path.open("ab")
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle


def _is_silent(domain: int) -> bool:
    # RTPS 2.2, section 9.6.1.1: unicast discovery port of participant i in domain d.
    ports = [7410 + 250 * domain + 2 * i for i in range(_LOOK_AT_PARTICIPANTS)]
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True
