"""Contenders for the fastest inference of one policy, each in a process of its own.

`child`, `job`, `replay` and `lerobot_peer` also run under interpreters that have no FastVLA
installed: they, and `fastvla_core.engines.memory`, import nothing but the standard library, torch
and safetensors.
"""
