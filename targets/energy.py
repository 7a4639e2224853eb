"""Energy that the machine counts itself: Intel's and AMD's RAPL, and the total-input rail of a Jetson.

Standard library only; runs on Python 3.9 and later. Nothing is estimated: where neither can be read, there is none.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Union

SYS = Path("/sys")
SAMPLES_A_SECOND = 20
# The rails that feed the whole module: VDD_IN (Orin Nano, Orin NX, Xavier NX, TX2), POM_5V_IN (Nano).
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")


class Rapl:
    """Package energy in microjoules, one file a package, that wraps at `max_energy_range_uj` (kernel documentation,
    "Power Capping Framework"). Its sub-domains (core, uncore, dram) and psys would count the same energy twice."""

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._before = self._read()

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def start(self) -> None:
        self._before = self._read()

    def stop(self) -> float | None:
        """Joules since `start`; None where the counter cannot be read any more."""
        try:
            after = self._read()
        except (OSError, ValueError):
            return None
        pairs = zip(self._before, after, self._ranges)  # noqa: B905  (strict= is newer than Python 3.9)
        return sum((new - old) % (most + 1) for old, new, most in pairs) / 1e6


class Rail:
    """Power of one rail of an INA3221, voltage (mV) × current (mA) of the kernel's hwmon, integrated by a thread
    (NVIDIA Jetson Linux Developer Guide, "Power Consumption and Monitoring"; kernel documentation, "ina3221")."""

    def __init__(self, voltage: Path, current: Path) -> None:
        self._files = voltage, current
        self._samples: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._watts()

    def _watts(self) -> float:
        volts, amperes = (int(file.read_text()) / 1000 for file in self._files)
        return volts * amperes

    def _sample(self) -> bool:
        try:
            self._samples.append((time.monotonic(), self._watts()))
        except (OSError, ValueError):
            self._samples = []  # a gap in the curve would be filled with a guess
            return False
        return True

    def _run(self) -> None:
        while self._sample() and not self._ended.wait(1 / SAMPLES_A_SECOND):
            pass

    def start(self) -> None:
        self._samples = []
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> float | None:
        """Joules since `start`, by the trapezoidal rule; None where the rail could not be read all the time."""
        assert self._thread is not None
        self._ended.set()
        self._thread.join()
        if not self._samples or not self._sample():
            return None
        pairs = zip(self._samples, self._samples[1:])  # noqa: B905  (see above)
        return sum((after[0] - before[0]) * (after[1] + before[1]) / 2 for before, after in pairs)


Meter = Union[Rapl, Rail]  # noqa: UP007  (evaluated, and `|` between classes is newer than Python 3.9)


def meter(root: Path = SYS) -> Meter | None:
    """The counter of the whole machine under `root`, where there is one that may be read. A Jetson without a
    total-input rail (AGX) has none: what its rails add up to is not what the module takes."""
    try:
        rail = _rail(root)
        if rail:
            return Rail(*rail)
        zones = [zone for zone in sorted((root / "class/powercap").glob("intel-rapl:*")) if _is_package(zone)]
        return Rapl(zones) if zones else None
    except (OSError, ValueError):  # most systems let only root read RAPL
        return None


def _is_package(zone: Path) -> bool:
    return (zone / "name").read_text().startswith("package-")


def _rail(root: Path) -> tuple[Path, Path] | None:
    """The files of voltage and current of the total-input rail."""
    for label in sorted((root / "bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*/in*_label")):
        match = re.fullmatch(r"in(\d+)_label", label.name)
        if match and label.read_text().strip() in TOTAL_RAILS:
            return label.with_name(f"in{match[1]}_input"), label.with_name(f"curr{match[1]}_input")
    return None


def idle_watts(counter: Meter | None, seconds: float = 1.0) -> float | None:
    """The mean power over `seconds` in which this process does nothing."""
    if counter is None:
        return None
    begin = time.monotonic()
    counter.start()
    time.sleep(seconds)
    joules = counter.stop()
    return None if joules is None else joules / (time.monotonic() - begin)
