"""What machine this is, at this moment: the noun Machine (compressor/schema/measurement.py) as a dict.

Standard library only; runs on Python 3.9 and later. What a system does not tell is None; host names, user names, serial
numbers and UUIDs are never read. `root` is where the files of the system lie, "/" but in tests.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.cpu_names import cpu_name, isa, values
    from targets.machine_limits import gpus, output, power_mode, quota_cores, quota_throttled_s, text, throttled
else:
    from cpu_names import cpu_name, isa, values
    from machine_limits import gpus, output, power_mode, quota_cores, quota_throttled_s, text, throttled

ROOT = Path("/")
CPUS = "sys/devices/system/cpu"

# One name for what Linux, macOS and Windows spell differently, so that a profile's fingerprint fits all of them.
ARCHITECTURES = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}


def machine(root: Path = ROOT) -> dict[str, Any]:
    """The noun Machine. Memory in GiB, MHz of the fastest usable core, degrees Celsius of the hottest zone."""
    moment = _moment(root)  # first: the rest may start programs, and these raise the clock and the temperature
    cpuinfo = text(root / "proc/cpuinfo")
    usable = _affinity()
    quota = quota_cores(root)
    return {
        "arch": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_name(cpuinfo, text(root / "proc/device-tree/model")) or _cpu_elsewhere(),
        "isa": isa(cpuinfo),
        "cores": os.cpu_count() or 1,
        "usable_cores": min(len(usable), max(1, int(quota))) if quota else len(usable),
        "affinity": usable if hasattr(os, "sched_getaffinity") else None,
        "quota_cores": quota,
        "memory_gb": _memory_gb(root),
        "python": platform.python_version(),
        "max_mhz": _cpufreq(root, "cpuinfo_max_freq"),
        "power_mode": power_mode(root),
        "gpus": gpus(root),
        **moment,
    }


def _moment(root: Path) -> dict[str, Any]:
    """The keys of `machine` that change while it works."""
    return {
        "quota_throttled_s": quota_throttled_s(root),
        "memory_available_gb": _meminfo_gb(root, "MemAvailable"),
        "load_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "steal_s": busy_and_steal_s(root)[1],
        "governor": text(root / CPUS / "cpu0/cpufreq/scaling_governor").strip() or None,
        "mhz": clock_mhz(root),
        "temperature_c": _temperature_c(root),
        "throttle_count": _throttle_count(root),
        "throttled": throttled(root),
    }


def busy_and_steal_s(root: Path = ROOT) -> tuple[float | None, float | None]:
    """CPU seconds since boot in which the CPUs that may be used were busy, interrupts included, and that a hypervisor
    took away from them."""
    usable = {f"cpu{number}" for number in _affinity()}
    busy = stolen = 0
    listed = False
    for line in text(root / "proc/stat").splitlines():
        name, *fields = line.split()
        if name in usable and len(fields) >= 8 and all(field.isdecimal() for field in fields):
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])  # user has guest in it
            busy, stolen, listed = busy + user + nice + system + irq + softirq, stolen + steal, True
    second: int = os.sysconf("SC_CLK_TCK") if listed else 1
    return (busy / second, stolen / second) if listed else (None, None)


def clock_mhz(root: Path = ROOT) -> float | None:
    """The clock of the fastest usable core now, MHz."""
    told = [value for value in values(text(root / "proc/cpuinfo"), "cpu MHz") if value.replace(".", "", 1).isdigit()]
    return _cpufreq(root, "scaling_cur_freq") or max(map(float, told), default=None)


def _cpufreq(root: Path, name: str) -> float | None:
    """The highest of the values in kHz that the usable cores have under `name`, in MHz."""
    values = [text(root / CPUS / f"cpu{core}/cpufreq/{name}").strip() for core in _affinity()]
    return max((int(khz) / 1000 for khz in values if khz.isdecimal()), default=None)


def _throttle_count(root: Path) -> int | None:
    """Thermal throttling events since boot, summed over cores and packages (Intel)."""
    values = [text(file).strip() for file in (root / CPUS).glob("cpu*/thermal_throttle/*_throttle_count")]
    counts = [int(count) for count in values if count.isdecimal()]
    return sum(counts) if counts else None


def _temperature_c(root: Path) -> float | None:
    millis = [text(zone).strip() for zone in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(reading) / 1000 for reading in millis if reading.lstrip("-").isdecimal()]
    return max((value for value in degrees if -40 < value < 150), default=None)  # broken sensors say -273 or 255


def _affinity() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cpu_elsewhere() -> str:
    """macOS and Windows."""
    return output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or "unknown"


def _meminfo_gb(root: Path, key: str) -> float | None:
    """A line of /proc/meminfo, which counts in KiB, in GiB."""
    words = next(iter(values(text(root / "proc/meminfo"), key)), "").split()
    return round(int(words[0]) / 2**20, 2) if words and words[0].isdecimal() else None


def _memory_gb(root: Path) -> float:
    """Physical memory in GiB; 0 where the system does not tell."""
    told = _meminfo_gb(root, "MemTotal")
    if told is not None:
        return told
    try:
        size: int = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0.0
    return round(size / 2**30, 2)
