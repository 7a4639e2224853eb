"""What holds a machine back: a CPU quota, throttling firmware, a power mode; and which GPUs it has.

Standard library only; runs on Python 3.9 and later. A program is started only where it is installed, and given up after
a few seconds. `root` is where the files of the system lie, "/" but in tests.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

PROGRAM_SECONDS = 5.0
# Raspberry Pi documentation, "get_throttled": bit n is the present, bit n + 16 whether it has been so since boot.
FIRMWARE_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")


def text(path: Path) -> str:
    """What is in a file; "" where there is none or it may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def output(program: str, *arguments: str) -> str:
    """What a program prints; "" where it is not installed, fails or hangs."""
    executable = shutil.which(program)
    if executable is None:
        return ""
    try:
        done = subprocess.run(
            [executable, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROGRAM_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def quota_cores(root: Path) -> float | None:
    """Cores' worth of time that the cgroup's CPU quota allows; None without a quota. A parent's quota binds its
    children, so the smallest on the way up counts."""
    quotas = []
    for level in _cgroups(root):
        limit, _, period = text(level / "cpu.max").strip().partition(" ")
        if not limit:  # version 1
            limit, period = (text(level / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if limit.isdecimal() and period.isdecimal() and int(period):
            quotas.append(int(limit) / int(period))
    return round(min(quotas), 3) if quotas else None


def quota_throttled_s(root: Path) -> float | None:
    """For how long the quota has stopped this cgroup or one above it so far, the longest of these, in seconds."""
    seconds = []
    for level in _cgroups(root):
        rows = dict(line.split(" ", 1) for line in text(level / "cpu.stat").splitlines() if " " in line)
        for key, unit in (("throttled_usec", 1e6), ("throttled_time", 1e9)):  # versions 2 and 1
            if rows.get(key, "").isdecimal():
                seconds.append(int(rows[key]) / unit)
    return max(seconds, default=None)


def _cgroups(root: Path) -> Iterator[Path]:
    """The folders of this process's cgroup and of those above it that can be seen, of the hierarchy for CPU time."""
    mount = root / "sys/fs/cgroup"
    for line in text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (line + "::").split(":")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = mount / "cpu" if controllers else mount  # version 2 has one hierarchy, without names
        # In a container the path may be one of the host's, of which only the base can be seen.
        inside = base / path.strip("/") if ".." not in path else base
        yield from (level for level in [inside, *inside.parents] if level == base or base in level.parents)


def throttled(root: Path) -> str | None:
    """What a Raspberry Pi's firmware says, e.g. "now: throttled; since boot: under-voltage, throttled"; "" for
    nothing, None elsewhere. Its own program first: reading the file makes the kernel forget what was before."""
    told = output("vcgencmd", "get_throttled").partition("=")[2]
    told = told or text(root / "sys/devices/platform/soc/soc:firmware/get_throttled").strip()
    try:
        bits = int(told, 16)
    except ValueError:
        return None
    parts = []
    for when, shift in (("now", 0), ("since boot", 16)):
        words = [word for number, word in enumerate(FIRMWARE_BITS) if bits >> (number + shift) & 1]
        if words:
            parts.append(f"{when}: {', '.join(words)}")
    return "; ".join(parts)


def power_mode(root: Path) -> str | None:
    """The name of a Jetson's power mode (NVIDIA Jetson Linux Developer Guide, "nvpmodel"), or the firmware's platform
    profile, e.g. "MAXN", "balanced"."""
    number = re.search(r"pmode:(\d+)", text(root / "var/lib/nvpmodel/status"))
    modes = dict(re.findall(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", text(root / "etc/nvpmodel.conf")))
    if number and str(int(number[1])) in modes:
        return str(modes[str(int(number[1]))])
    asked = re.search(r"NV Power Mode:\s*(\S+)", output("nvpmodel", "-q"))
    return asked[1] if asked else text(root / "sys/firmware/acpi/platform_profile").strip() or None


@functools.cache
def gpus(root: Path) -> tuple[str, ...]:
    """Names of the NVIDIA GPUs; of a Jetson's own, the board's name. Asked once: they do not change."""
    named = output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    if named:
        return tuple(name.strip() for name in named)
    board = text(root / "proc/device-tree/model").strip("\0 \n")
    folders = ("sys/devices/gpu.0", "sys/devices/platform/gpu.0")
    if "Jetson" in board or any((root / folder).exists() for folder in folders):
        return (f"{board or 'Tegra'} (integrated GPU)",)
    return ()
