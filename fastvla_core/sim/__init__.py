"""The MuJoCo table-top robot: scene, tasks, scripted experts, demonstrations and rollouts.

MuJoCo is imported when the first `TabletopSim` is made, not before.
"""

from fastvla_core.sim.demonstrations import Demonstration, record_demonstration
from fastvla_core.sim.expert import expert_action
from fastvla_core.sim.instructions import instruction, parse_instruction
from fastvla_core.sim.monitor import Outcome, TaskMonitor
from fastvla_core.sim.rollout import EpisodeResult, rollout, rollout_many
from fastvla_core.sim.sim import TabletopSim
from fastvla_core.sim.tabletop import TabletopEnvironment, observe
from fastvla_core.sim.tasks import COLOURS, TASK_KINDS, TASKS, Task, canonical, sample_task

__all__ = [
    "COLOURS",
    "TASKS",
    "TASK_KINDS",
    "Demonstration",
    "EpisodeResult",
    "Outcome",
    "TabletopEnvironment",
    "TabletopSim",
    "Task",
    "TaskMonitor",
    "canonical",
    "expert_action",
    "instruction",
    "observe",
    "parse_instruction",
    "record_demonstration",
    "rollout",
    "rollout_many",
    "sample_task",
]
