"""What machine this is, at this moment: the noun Machine (compressor/spec/measurement.py) as a dict.

Standard library only. What a system does not tell is None; no host, user or file name is ever read.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

X86_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx_vnni",
    "amx_int8", "amx_bf16",
)  # fmt: skip

# "CPU implementer" and "CPU part" of /proc/cpuinfo -> the core's name, as in util-linux' lscpu.
ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53", ("0x41", "0xd04"): "Cortex-A35", ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57", ("0x41", "0xd08"): "Cortex-A72", ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75", ("0x41", "0xd0b"): "Cortex-A76", ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd0d"): "Cortex-A77", ("0x41", "0xd0e"): "Cortex-A76AE", ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78", ("0x41", "0xd42"): "Cortex-A78AE", ("0x41", "0xd44"): "Cortex-X1",
    ("0x41", "0xd46"): "Cortex-A510", ("0x41", "0xd47"): "Cortex-A710", ("0x41", "0xd48"): "Cortex-X2",
    ("0x41", "0xd49"): "Neoverse-N2", ("0x41", "0xd4b"): "Cortex-A78C", ("0x41", "0xd4c"): "Cortex-X1C",
    ("0x41", "0xd4d"): "Cortex-A715", ("0x41", "0xd4e"): "Cortex-X3", ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd80"): "Cortex-A520", ("0x41", "0xd81"): "Cortex-A720", ("0x41", "0xd82"): "Cortex-X4",
    ("0x41", "0xd84"): "Neoverse-V3", ("0x41", "0xd85"): "Cortex-X925", ("0x41", "0xd87"): "Cortex-A725",
    ("0x41", "0xd8e"): "Neoverse-N3", ("0x4e", "0x003"): "Denver 2", ("0x4e", "0x004"): "Carmel",
    ("0x51", "0x001"): "Oryon",
}  # fmt: skip

# One name for what Linux, macOS and Windows spell differently, so that a profile's fingerprint fits all of them.
ARCHITECTURES = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}


def machine() -> dict[str, Any]:
    """The noun Machine. Memory in GiB, MHz of the fastest usable core, degrees Celsius of the hottest zone."""
    cpuinfo = _text("/proc/cpuinfo")
    usable = _affinity()
    quota = quota_cores(Path("/sys/fs/cgroup"), _text("/proc/self/cgroup"))
    return {
        "arch": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_name(cpuinfo, _text("/proc/device-tree/model")) or _cpu_elsewhere(),
        "isa": isa(cpuinfo),
        "cores": os.cpu_count() or 1,
        "usable_cores": min(len(usable), quota or len(usable)),
        "memory_gb": _memory_gb(),
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "steal_s": _steal_s(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "mhz": _mhz(usable, cpuinfo),
        "temperature_c": _temperature_c(),
    }


def cpu_name(cpuinfo: str, board: str) -> str:
    """The CPU from the texts of /proc/cpuinfo and /proc/device-tree/model, e.g. "Cortex-A76 (Raspberry Pi 5 Model B
    Rev 1.0)"; cores of several kinds are joined with " + ". "" where cpuinfo does not say."""
    parts = _values(cpuinfo, "CPU part")
    if parts:  # before "model name": 32-bit ARM kernels put "ARMv7 Processor rev 4" there
        makers = _values(cpuinfo, "CPU implementer")
        makers += makers[-1:] * (len(parts) - len(makers)) or [""] * len(parts)
        kinds = [(makers[i].lower(), parts[i].lower()) for i in range(len(parts))]
        name = " + ".join(ARM_CORES.get(kind, f"ARM core {kind[0]}/{kind[1]}") for kind in dict.fromkeys(kinds))
    else:
        name = next(iter(_values(cpuinfo, "model name")), "")
    board = board.strip("\0 \n")
    return f"{name} ({board})" if name and board else name or board


def isa(cpuinfo: str) -> list[str]:
    """What the instruction set has: on x86 those of X86_FLAGS, in that order; on ARM the "Features" as given."""
    flags = next(iter(_values(cpuinfo, "flags")), "").split()
    if flags:
        return [flag for flag in X86_FLAGS if flag in flags]
    return next(iter(_values(cpuinfo, "Features")), "").split()


def quota_cores(root: Path, membership: str) -> int | None:
    """Whole cores (at least 1) that the cgroup's CPU quota allows; None without a quota. `membership`: the text of
    /proc/self/cgroup. A parent's quota binds its children, so the smallest on the way up to `root` counts."""
    own = next((line[3:].strip("/") for line in membership.splitlines() if line.startswith("0::")), "")
    levels = [root / own, *(root / own).parents] if ".." not in own else [root]
    quotas = []
    for level in levels[: levels.index(root) + 1]:
        limit, _, period = _text(str(level / "cpu.max")).strip().partition(" ")
        if not limit:  # cgroup version 1
            limit, period = (_text(str(root / "cpu" / f"cpu.cfs_{name}_us")).strip() for name in ("quota", "period"))
        if limit.isdigit() and period.isdigit() and int(period):
            quotas.append(int(limit) // int(period))
    return max(1, min(quotas)) if quotas else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _values(cpuinfo: str, key: str) -> list[str]:
    pairs = [line.partition(":") for line in cpuinfo.splitlines()]
    return [value.strip() for name, _, value in pairs if name.strip() == key]


def _affinity() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cpu_elsewhere() -> str:
    """macOS and Windows."""
    try:
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found = ""
    return found or platform.processor() or "unknown"


def _memory_gb() -> float:
    """Physical memory in GiB; 0 where the system does not tell."""
    total = next(iter(_values(_text("/proc/meminfo"), "MemTotal")), "").split()
    try:
        size = int(total[0]) * 1024 if total else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0.0
    return round(size / 2**30, 2)


def _steal_s() -> float | None:
    fields = _text("/proc/stat").partition("\n")[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 else None


def _mhz(usable: list[int], cpuinfo: str) -> float | None:
    places = [f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in usable]
    khz = [float(text) for text in map(str.strip, map(_text, places)) if text.isdigit()]
    told = [float(value) for value in _values(cpuinfo, "cpu MHz") if value.replace(".", "", 1).isdigit()]
    return max(khz) / 1000 if khz else max(told, default=None)


def _temperature_c() -> float | None:
    millis = [_text(str(zone)).strip() for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(text) / 1000 for text in millis if text.lstrip("-").isdigit()]
    return max((value for value in degrees if -40 < value < 150), default=None)  # broken sensors say -273 or 255
