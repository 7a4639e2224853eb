"""How much memory a runner's process holds.

Standard library only; runs on Python 3.9 and later.
"""

from __future__ import annotations

from pathlib import Path


def memory_mb(key: str) -> float | None:
    """A line of /proc/self/status in MB (10^6 bytes): VmRSS, or VmHWM for the peak. None where there is no /proc.
    Not getrusage: its maximum survives exec, so that a child would report the memory of its parent."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    fields = next((line.split() for line in lines if line.startswith(key + ":")), None)
    return round(int(fields[1]) * 1024 / 1e6, 3) if fields else None
