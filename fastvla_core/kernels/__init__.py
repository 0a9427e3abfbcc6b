"""Operators with a plain torch reference and a Triton twin, one folder each.

A folder's `__init__` picks the implementation by the device of its input: tensors on the CPU take
the reference, CUDA tensors take Triton. Triton is imported only when a CUDA tensor arrives, so that
machines without it can use everything else.
"""
