"""How much memory a process and its device needed at most."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """The largest amounts since the last `reset_peak_memory`, or since the process began.

    Attributes:
        host_bytes: Resident memory of the process; None where the system does not tell.
        device_bytes: What PyTorch allocated on the device; None on a CPU.
    """

    host_bytes: int | None
    device_bytes: int | None

    def __str__(self) -> str:
        host = "unknown" if self.host_bytes is None else f"{self.host_bytes / 1e6:.0f} MB"
        if self.device_bytes is None:
            return f"{host} of memory at most"
        return f"{host} of memory and {self.device_bytes / 1e6:.0f} MB of the device at most"


def peak_memory(device: torch.device) -> PeakMemory:
    """The peak of this process, and of a CUDA device."""
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return PeakMemory(host_bytes=_peak_resident_bytes(), device_bytes=on_device)


def reset_peak_memory(device: torch.device) -> None:
    """Let the peak begin at what is used now, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if os.access(_CLEAR, os.W_OK):
        _CLEAR.write_text(_RESET_PEAK)


def _peak_resident_bytes() -> int | None:
    # Not getrusage: its peak begins with the process that started this one.
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
