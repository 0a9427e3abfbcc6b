"""`python -m fastvla_ros.bench.peers RUNTIME PROGRAM SETTINGS`; the last line printed is JSON."""

from __future__ import annotations

import importlib
import json
import sys


def main(runtime: str, program: str, settings: str) -> None:
    """Run one program on one runtime.

    Args:
        runtime: `embedded` installs the embedded subset even where there is an rclpy.
        program: A module of this package.
        settings: JSON, the arguments of the program's `run`.
    """
    if runtime == "embedded":
        from fastvla_ros.embedded.install import install

        install()
    module = importlib.import_module(f"fastvla_ros.bench.peers.{program}")
    report = module.run(**json.loads(settings))
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
