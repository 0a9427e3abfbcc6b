"""`fastvla bringup` with the policy of fixed chunks in the model's place; the same arguments."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields

from fastvla_core.errors import FastVLAError
from fastvla_ros.bench.pipeline import without_model
from fastvla_ros.bringup_description import BringupOptions, describe
from fastvla_ros.commands_cli.bringup import add_arguments, run_until_stopped


def main() -> int:
    """Run until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    args = parser.parse_args()
    options = BringupOptions(**{f.name: getattr(args, f.name) for f in fields(BringupOptions)})
    try:
        run_until_stopped(options, specs=[without_model(spec) for spec in describe(options)])
    except FastVLAError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
