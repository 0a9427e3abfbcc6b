"""Contenders for the fastest inference of one policy, each in a process of its own.

`child`, `job`, `replay`, `lerobot_peer` and `openpi_peer` also run under interpreters that have no
FastVLA installed: they, and `fastvla_core.engines.memory`, import nothing but the standard library,
torch and safetensors.
"""
