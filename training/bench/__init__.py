"""Measurements behind docs/benchmarks.md: inference, memory and training speed on this machine."""
