"""Domain id, discovery range and buffers of this process."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from fastvla_core.errors import RosError

RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
RMEM_WANTED = 4_194_304

# What is received goes through buffers one after the other, each of them touched for the first time
# as it fills, and what the discovery keeps for a moment makes it several: with the usual ones of
# 1 MiB a small process seems to grow for more than half an hour. A chunk takes any datagram.
BUFFERS = """<Internal><SocketReceiveBufferSize min="default" max="4MB"/></Internal>
<Sizing><ReceiveBufferSize>128KiB</ReceiveBufferSize>
<ReceiveBufferChunkSize>68KiB</ReceiveBufferChunkSize></Sizing>"""

# Large fragments: with the default ones a third of the best-effort images is lost.
LOOPBACK = f"""<General><Interfaces><NetworkInterface name="lo"/></Interfaces>
<AllowMulticast>false</AllowMulticast>
<MaxMessageSize>65500B</MaxMessageSize><FragmentSize>65000B</FragmentSize></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex>
<MaxAutoParticipantIndex>60</MaxAutoParticipantIndex>
<Peers><Peer Address="localhost"/></Peers></Discovery>
{BUFFERS}"""

SUBNET = f"""<General><MaxMessageSize>65500B</MaxMessageSize>
<FragmentSize>65000B</FragmentSize></General>
{BUFFERS}"""


def domain_id() -> int:
    """ROS_DOMAIN_ID, 0 when unset.

    Raises:
        RosError: it is not a number from 0 to 232.
    """
    text = os.environ.get("ROS_DOMAIN_ID", "") or "0"
    if not text.isdigit() or int(text) > 232:
        raise RosError(f"ROS_DOMAIN_ID is '{text}'", mend="set it to a number from 0 to 232")
    return int(text)


def cyclonedds_config() -> str:
    """The XML for this process: loopback only, unless ROS_AUTOMATIC_DISCOVERY_RANGE widens it.

    Raises:
        RosError: the range is one that this runtime does not serve.
    """
    wanted = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "") or "LOCALHOST"
    if wanted == "LOCALHOST":
        return LOOPBACK
    if wanted == "SUBNET":
        return SUBNET
    raise RosError(
        f"ROS_AUTOMATIC_DISCOVERY_RANGE is '{wanted}'",
        mend="the embedded ROS runtime serves LOCALHOST (its default) and SUBNET",
    )


@cache
def warn_about_receive_buffer() -> None:
    """Say so, once in a process, when the kernel's limit will lose images between processes."""
    if not RMEM_MAX.is_file():
        return
    limit = int(RMEM_MAX.read_text())
    if limit < RMEM_WANTED:
        print(
            f"[WARN] net.core.rmem_max is {limit}: best-effort images between processes will be "
            f"lost\n  to mend: sudo sysctl -w net.core.rmem_max={RMEM_WANTED}",
            file=sys.stderr,
        )
