"""Energy counters on trees of files that are made up as the kernel makes them."""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.targets.harness import LoadScript

POWERCAP = "class/powercap"
INA = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"


def write(root: Path, files: dict[str, object]) -> None:
    for name, value in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{value}\n")


def zone(name: str, label: str, microjoules: int, most: int = 10**9) -> dict[str, object]:
    values = {"name": label, "energy_uj": microjoules, "max_energy_range_uj": most}
    return {f"{POWERCAP}/{name}/{key}": value for key, value in values.items()}


def rail(number: int, label: str, millivolts: int, milliamperes: int) -> dict[str, object]:
    files = {f"in{number}_label": label, f"in{number}_input": millivolts, f"curr{number}_input": milliamperes}
    return {f"{INA}/{key}": value for key, value in files.items()}


def test_rapl_adds_the_packages_and_nothing_twice(load: "LoadScript", tmp_path: Path) -> None:
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}
    zones |= {"intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl-mmio:0": "package-0"}
    for name, label in zones.items():
        write(tmp_path, zone(name, label, 1_000_000))
    meter = load("energy").meter(tmp_path)
    meter.start()
    for count, (name, label) in enumerate(zones.items(), 1):
        write(tmp_path, zone(name, label, 1_000_000 + count * 500_000))
    assert meter.stop() == pytest.approx(0.5 + 1.0)
    meter.start()
    assert meter.stop() == 0


def test_rapl_wraps_around(load: "LoadScript", tmp_path: Path) -> None:
    write(tmp_path, zone("intel-rapl:0", "package-0", 900_000, most=999_999))
    meter = load("energy").meter(tmp_path)
    meter.start()
    write(tmp_path, zone("intel-rapl:0", "package-0", 100_000, most=999_999))
    assert meter.stop() == pytest.approx(0.2)


def test_rapl_that_vanishes_is_none(load: "LoadScript", tmp_path: Path) -> None:
    write(tmp_path, zone("intel-rapl:0", "package-0", 1))
    meter = load("energy").meter(tmp_path)
    meter.start()
    (tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.stop() is None


def test_a_rail_is_integrated(load: "LoadScript", tmp_path: Path) -> None:
    write(tmp_path, {**rail(1, "VDD_IN", 5000, 800), **rail(2, "VDD_CPU_GPU_CV", 5000, 300)})
    meter = load("energy").meter(tmp_path)
    before = set(threading.enumerate())
    outer = time.monotonic()
    meter.start()
    time.sleep(0.12)
    joules = meter.stop()
    # 4 W throughout. The first sample may lie any time after `start`, so there is no other lower limit.
    assert 0 < joules <= 4.0 * (time.monotonic() - outer)
    assert len(meter._samples) >= 2
    assert set(threading.enumerate()) <= before


def test_a_rail_is_integrated_by_the_trapezoidal_rule(load: "LoadScript", tmp_path: Path) -> None:
    write(tmp_path, rail(3, "POM_5V_IN", 5000, 1000))
    meter = load("energy").meter(tmp_path)
    meter.start()
    meter.stop()
    begin = time.monotonic()
    meter._samples = [(begin - 2.0, 2.0), (begin - 1.0, 4.0), (begin, 5.0)]
    joules = meter.stop()  # 3 J, 4.5 J, and 5 W from then on
    assert joules == pytest.approx(3.0 + 4.5 + 5.0 * (meter._samples[-1][0] - begin))


def test_a_rail_with_a_gap_is_none(load: "LoadScript", tmp_path: Path) -> None:
    write(tmp_path, rail(1, "VDD_IN", 5000, 800))
    meter = load("energy").meter(tmp_path)
    meter.start()
    (tmp_path / INA / "curr1_input").write_text("busy\n")
    assert meter.stop() is None


@pytest.mark.parametrize(
    "files",
    [
        {},
        {**zone("intel-rapl:0", "psys", 1)},
        {f"{POWERCAP}/intel-rapl:0/name": "package-0"},  # energy_uj may be read by root only
        # A Jetson AGX Orin: what its rails add up to is not what the module takes.
        {**rail(1, "VDD_GPU_SOC", 12000, 300), **rail(2, "VDD_CPU_CV", 12000, 100), **rail(3, "VIN_SYS_5V0", 5000, 9)},
        {**rail(1, "VDD_IN", 5000, 800), f"{INA}/curr1_input": "no number"},
    ],
    ids=["nothing", "psys", "unreadable", "agx", "broken"],
)
def test_where_nothing_counts_all_of_it_there_is_no_meter(
    load: "LoadScript", tmp_path: Path, files: dict[str, object]
) -> None:
    write(tmp_path, files)
    energy = load("energy")
    assert energy.meter(tmp_path) is None
    assert energy.idle_watts(None) is None


def test_the_total_rail_comes_before_rapl_and_idle_power_is_its_mean(load: "LoadScript", tmp_path: Path) -> None:
    write(tmp_path, {**zone("intel-rapl:0", "package-0", 1), **rail(1, "VDD_IN", 5000, 800)})
    energy = load("energy")
    meter = energy.meter(tmp_path)
    assert isinstance(meter, energy.Rail)
    watts = energy.idle_watts(meter, 0.05)
    assert 0 < watts <= 4.0
