"""What machine_info.py and machine_limits.py read from trees of files that are made up as systems make them."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.targets.harness import LoadScript

from compressor.schema.base import parse
from compressor.schema.measurement import Machine

PI = """processor\t: 0
Features\t: fp asimd evtstrm crc32 fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0b
processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd0b
Serial\t\t: 10000000deadbeef
"""
PHONE = "".join(f"CPU implementer : 0x41\nCPU part : {part}\n" for part in ("0xd80", "0xd81", "0xd81", "0xd82"))
ORIN = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
MODES = "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH: programs that a test writes there are the only ones installed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_the_machine_is_a_raspberry_pi(load: "LoadScript") -> None:
    names = load("cpu_names")
    assert names.cpu_name(PI, "Raspberry Pi 5 Model B Rev 1.0\0") == "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)"
    assert names.isa(PI) == ["fp", "asimd", "evtstrm", "crc32", "fphp", "asimdhp", "asimddp"]


def test_the_machine_has_three_kinds_of_cores(load: "LoadScript") -> None:
    assert load("cpu_names").cpu_name(PHONE, "") == "Cortex-A520 + Cortex-A720 + Cortex-X4"


def test_an_unknown_arm_core_keeps_its_number(load: "LoadScript") -> None:
    name = load("cpu_names").cpu_name("CPU implementer : 0x41\nCPU part : 0xfff\n", "")
    assert name == "ARM core 0x41/0xfff"


def test_x86_flags_are_a_selection(load: "LoadScript") -> None:
    names = load("cpu_names")
    text = "model name\t: Intel(R) N100\nflags\t\t: fpu avx2 sse4_2 avx_vnni avx fma hypervisor\n"
    assert names.isa(text) == ["sse4_2", "avx", "avx2", "fma", "avx_vnni"]
    assert names.cpu_name(text, "") == "Intel(R) N100"


V1, V2 = "4:cpu,cpuacct:/a/b\n3:memory:/elsewhere\n0::/\n", "0::/a/b\n"


@pytest.mark.parametrize(
    ("membership", "limits", "cores"),
    [
        (V2, {"cpu.max": "max 100000"}, None),
        (V2, {"cpu.max": "150000 100000"}, 1.5),
        (V2, {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000", "cpu.max": "400000 100000"}, 2.5),
        ("0::/../../host\n", {"cpu.max": "50000 100000"}, 0.5),
        (V1, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, 0.5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        (V1, {"memory/elsewhere/cpu.max": "100000 100000"}, None),
        ("", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_the_smallest_quota_counts(
    load: "LoadScript", tmp_path: Path, membership: str, limits: dict[str, str], cores: float | None
) -> None:
    write(tmp_path, {f"sys/fs/cgroup/{name}": text + "\n" for name, text in limits.items()})
    write(tmp_path, {"proc/self/cgroup": membership})
    assert load("machine_limits").quota_cores(tmp_path) == cores
    usable = len(os.sched_getaffinity(0))
    assert load("machine_info").machine(tmp_path)["usable_cores"] == min(usable, max(1, int(cores or usable)))


@pytest.mark.parametrize(
    ("membership", "stats", "seconds"),
    [
        (V2, {"a/b/cpu.stat": "usage_usec 9\nnr_throttled 2\nthrottled_usec 2500000\n"}, 2.5),
        (V2, {"a/b/cpu.stat": "throttled_usec 0\n", "a/cpu.stat": "throttled_usec 1000000\n"}, 1.0),
        (V1, {"cpu/a/b/cpu.stat": "nr_periods 7\nnr_throttled 1\nthrottled_time 1500000000\n"}, 1.5),
        (V2, {"cpu.stat": "usage_usec 9\n"}, None),
        (V2, {}, None),
    ],
)
def test_how_long_the_quota_stopped_it(
    load: "LoadScript", tmp_path: Path, membership: str, stats: dict[str, str], seconds: float | None
) -> None:
    write(tmp_path, {f"sys/fs/cgroup/{name}": text for name, text in stats.items()})
    write(tmp_path, {"proc/self/cgroup": membership})
    assert load("machine_limits").quota_throttled_s(tmp_path) == seconds


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        ("0", ""),
        ("50005", "now: under-voltage, throttled; since boot: under-voltage, throttled"),
        ("0x80000", "since boot: soft temperature limit"),
        ("a", "now: frequency capped, soft temperature limit"),
        ("20000", "since boot: frequency capped"),
        ("", None),
        ("nonsense", None),
    ],
)
def test_a_raspberry_pi_s_firmware_in_words(
    load: "LoadScript", tmp_path: Path, programs: Path, bits: str, words: str | None
) -> None:
    limits = load("machine_limits")
    write(tmp_path, {FIRMWARE: bits + "\n"})
    assert limits.throttled(tmp_path) == words
    # Its own program is asked first: reading the file makes the kernel forget.
    install(programs, "vcgencmd", "echo throttled=0x4")
    assert limits.throttled(tmp_path) == "now: throttled"
    install(programs, "vcgencmd", "echo VCHI initialization failed; exit 255")
    assert limits.throttled(tmp_path) == words


def test_a_jetson_s_power_mode(load: "LoadScript", tmp_path: Path, programs: Path) -> None:
    limits = load("machine_limits")
    assert limits.power_mode(tmp_path) is None
    write(tmp_path, {"sys/firmware/acpi/platform_profile": "balanced\n"})
    assert limits.power_mode(tmp_path) == "balanced"
    install(programs, "nvpmodel", 'echo "NVPM WARN: fan mode is not set!"; echo "NV Power Mode: MAXN"; echo 0')
    assert limits.power_mode(tmp_path) == "MAXN"
    write(tmp_path, {"var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n", "etc/nvpmodel.conf": MODES})
    assert limits.power_mode(tmp_path) == "MAXN_SUPER"


def test_gpus_by_name_only(load: "LoadScript", tmp_path: Path, programs: Path) -> None:
    limits = load("machine_limits")
    orin = write(tmp_path / "orin", {"proc/device-tree/model": ORIN})
    assert limits.gpus(orin) == (f"{ORIN[:-1]} (integrated GPU)",)
    assert limits.gpus(write(tmp_path / "nano", {"sys/devices/gpu.0/load": "0"})) == ("Tegra (integrated GPU)",)
    assert limits.gpus(write(tmp_path / "pi", {"proc/device-tree/model": "Raspberry Pi 5\0"})) == ()
    install(programs, "nvidia-smi", 'test "$*" = "--query-gpu=name --format=csv,noheader" && printf "A10G\\nA10G\\n"')
    assert limits.gpus(tmp_path) == ("A10G", "A10G")


def test_a_program_that_hangs_is_given_up(load: "LoadScript", monkeypatch: pytest.MonkeyPatch, programs: Path) -> None:
    limits = load("machine_limits")
    monkeypatch.setattr(limits, "PROGRAM_SECONDS", 0.1)
    install(programs, "nvpmodel", "while :; do :; done")
    assert limits.output("nvpmodel", "-q") == ""


def test_everything_at_once(load: "LoadScript", tmp_path: Path, programs: Path) -> None:
    mine = f"cpu{min(os.sched_getaffinity(0))}"
    core = f"sys/devices/system/cpu/{mine}"
    busy = ("cpu  9 9 9 9 9 9 9 9 9 9", f"{mine} 1000 100 200 9999 50 20 30 400 77 0", "cpu4095 1 2 3 4 5 6 7 8 9 0")
    write(
        tmp_path,
        {
            "proc/cpuinfo": PI,
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/meminfo": "MemTotal:        8388608 kB\nMemAvailable:    4194304 kB\n",
            "proc/stat": "\n".join(busy) + "\n",
            f"{core}/cpufreq/scaling_cur_freq": "1500000\n",
            f"{core}/cpufreq/cpuinfo_max_freq": "2400000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "4\n",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "5\n",
            "sys/class/thermal/thermal_zone0/temp": "61500\n",
            "sys/class/thermal/thermal_zone1/temp": "-273000\n",
            FIRMWARE: "40000\n",
        },
    )
    info = load("machine_info")
    found = info.machine(tmp_path)
    machine = parse(Machine, json.loads(json.dumps(found)), "a made-up Raspberry Pi")
    tick = os.sysconf("SC_CLK_TCK")
    assert machine.cpu == "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)"
    assert (machine.memory_gb, machine.memory_available_gb) == (8.0, 4.0)
    assert (machine.mhz, machine.max_mhz, machine.governor) == (1500.0, 2400.0, "ondemand")
    assert (machine.temperature_c, machine.throttle_count) == (61.5, 12)
    assert machine.throttled == "since boot: throttled"
    assert machine.steal_s == 400 / tick
    assert info.busy_and_steal_s(tmp_path) == ((1000 + 100 + 200 + 20 + 30) / tick, 400 / tick)
    assert (machine.quota_cores, machine.quota_throttled_s, machine.power_mode, machine.gpus) == (None, None, None, ())
    assert "deadbeef" not in json.dumps(found)  # the serial number in cpuinfo


def test_a_machine_without_proc_and_sys_has_nulls(
    load: "LoadScript", monkeypatch: pytest.MonkeyPatch, tmp_path: Path, programs: Path
) -> None:
    info = load("machine_info")
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.delattr("os.getloadavg")
    found = info.machine(tmp_path)
    parse(Machine, found, "a machine that tells nothing")
    told = {"arch", "system", "cpu", "isa", "cores", "usable_cores", "memory_gb", "python", "gpus"}
    assert {key for key, value in found.items() if value is not None} == told
    assert found["cores"] >= found["usable_cores"] >= 1
    assert found["memory_gb"] > 0
    assert info.busy_and_steal_s(tmp_path) == (None, None)
