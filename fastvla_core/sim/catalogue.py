"""Tasks by name, of whichever simulator: `pick` is the table-top's, `metaworld/drawer-open-v3` is
Meta-World's."""

from __future__ import annotations

from fastvla_core.errors import SimError
from fastvla_core.sim.environment import Environment
from fastvla_core.sim.metaworld.environment import MetaWorldEnvironment
from fastvla_core.sim.metaworld.tasks import PREFIX, MetaWorldTask
from fastvla_core.sim.tabletop import TabletopEnvironment
from fastvla_core.sim.tasks import TASK_KINDS, TaskKind


def metaworld_task(name: str) -> MetaWorldTask | None:
    """The task of Meta-World that a name stands for; None when it is another simulator's.

    Raises:
        SimError: Meta-World has no such task; names those that are spelt alike.
    """
    if not name.startswith(PREFIX):
        return None
    return MetaWorldTask(name=name.removeprefix(PREFIX))


def tabletop_kind(name: str) -> TaskKind:
    """The table-top's task of a name.

    Raises:
        SimError: it has no such task.
    """
    for kind in TASK_KINDS:
        if kind == name:
            return kind
    raise SimError(
        f"there is no task '{name}'",
        mend=f"one of {', '.join(TASK_KINDS)}, or {PREFIX}TASK such as {PREFIX}drawer-open-v3",
    )


def contract_name(name: str) -> str:
    """The shipped contract of the robot that does a task.

    Raises:
        SimError: there is no such task.
    """
    if metaworld_task(name) is not None:
        return "metaworld"
    tabletop_kind(name)
    return "tabletop"


def make_environment(name: str) -> Environment:
    """An environment that can do the task of a name, and its simulator's others.

    Raises:
        SimError: there is no such task, or the simulator cannot start.
        DependencyError: the simulator is not installed.
    """
    if metaworld_task(name) is not None:
        return MetaWorldEnvironment()
    tabletop_kind(name)
    return TabletopEnvironment()
