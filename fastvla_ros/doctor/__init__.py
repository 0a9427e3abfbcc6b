"""`fastvla doctor`: looks at everything a robot's run depends on, and says how to mend it.

| module | looks at |
| --- | --- |
| `machine` | Python, torch, GPU, graphics, packages, disk, processor |
| `network` | ROS, middleware, domain, discovery, kernel buffers |
| `project` | robot contract, checkpoint |
| `observing` | takes the live graph down as a `graph.LiveGraph`, in bounded time |
| `topics`, `sensors`, `clocks`, `nodes` | that graph against the contract |
"""

from fastvla_ros.doctor.examination import Options, examine
from fastvla_ros.doctor.findings import Finding
from fastvla_ros.doctor.network import network_buffers

__all__ = ["Finding", "Options", "examine", "network_buffers"]
