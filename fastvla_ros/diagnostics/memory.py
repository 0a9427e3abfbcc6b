"""Memory of this process, on the machine and on the GPU."""

from __future__ import annotations

import sys
from pathlib import Path

from fastvla_ros.diagnostics.status import Status

_STATUS_FILE = Path("/proc/self/status")
_LITTLE_VRAM = 0.03
_MIB = 1 << 20


def memory_status() -> Status:
    """Resident memory, threads and GPU memory; WARN when the GPU is nearly full."""
    values = {**process_values(), **gpu_values()}
    free, total = values.get("vram_free_mib"), values.get("vram_total_mib")
    rss = values.get("rss_mib", 0)
    if free is None or total is None:
        return Status(name="memory", level="OK", message=f"{rss:.0f} MiB, no GPU", values=values)
    message = f"{rss:.0f} MiB; GPU: {total - free:.0f} of {total:.0f} MiB used"
    if free < _LITTLE_VRAM * total:
        message += ": the next inference may fail; end what else uses the GPU (nvidia-smi)"
        return Status(name="memory", level="WARN", message=message, values=values)
    return Status(name="memory", level="OK", message=message, values=values)


def process_values() -> dict[str, float]:
    """Resident memory [MiB] and threads; nothing where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in _STATUS_FILE.read_text().splitlines())
    except OSError:
        return {}
    return {
        "rss_mib": int(lines["VmRSS"].split()[0]) / 1024,
        "threads": int(lines["Threads"]),
    }


def gpu_values() -> dict[str, float]:
    """GPU memory [MiB]: this process's, and what is free; nothing without a GPU in use."""
    torch = sys.modules.get("torch")
    if torch is None or not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return {}
    free, total = torch.cuda.mem_get_info()
    return {
        "vram_mib": torch.cuda.memory_allocated() / _MIB,
        "vram_reserved_mib": torch.cuda.memory_reserved() / _MIB,
        "vram_peak_mib": torch.cuda.max_memory_allocated() / _MIB,
        "vram_free_mib": free / _MIB,
        "vram_total_mib": total / _MIB,
    }
