"""`--env`: tasks of other simulators than the table-top's."""

from __future__ import annotations

import argparse
from typing import Any

from fastvla_core.errors import SimError
from fastvla_core.sim.catalogue import contract_name


def add_env_argument(parser: Any) -> None:
    """Declare `--env`; what is given is a tuple of known names.

    Args:
        parser: An `ArgumentParser`, or a group of one.
    """
    parser.add_argument(
        "--env", type=_names, metavar="metaworld/TASK",
        help="one of Meta-World's tasks, such as metaworld/drawer-open-v3; several with commas",
    )  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    try:
        for name in names:
            contract_name(name)
    except SimError as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.mend}") from error
    return names
