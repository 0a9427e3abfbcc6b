"""Tests of networks need the extra `vlm`, for which there is no version on Python 3.10."""

from __future__ import annotations

import importlib.util

collect_ignore: list[str] = []
if importlib.util.find_spec("transformers") is None:
    collect_ignore = [
        "test_parity.py",
        "test_backbone.py",
        "test_quantized.py",
        "test_lora.py",
        "test_loading.py",
        "test_describe.py",
        "test_fast_vlm.py",
        "test_images.py",
    ]
