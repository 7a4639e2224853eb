from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.report.checks.conditions import disturbances
from compressor.report.read import read_results

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def disturbed(bundle: Path) -> tuple[str, ...]:
    measurement = read_results(bundle).measurement
    assert measurement is not None
    return disturbances(measurement)


@pytest.mark.parametrize(
    ("bundle", "said"),
    [
        ({}, None),
        # Rounds of 0.2 s on 4 cores: 0.8 s of CPU time each, 0.4 s of it their own.
        ({"played": {"busy_cpu_s": 0.7}}, "other processes used 37.5 % of the machine (1.50 of 4 cores over 8.00 s)"),
        ({"played": {"busy_cpu_s": 0.439}}, None),
        ({"played": {"busy_cpu_s": 0.39}}, None),
        ({"played": {"busy_cpu_s": 0.6, "own_cpu_s": None}}, None),
        (
            {"played": {"steal_s": 0.02}},
            "the hypervisor took 2.50 % of the machine away (steal: 0.800 s on 4 cores in 8.00 s)",
        ),
        ({"played": {"steal_s": 0.015}}, None),
        ({"played": {"steal_s": None, "busy_cpu_s": None, "mhz": None}}, None),
        (
            {"after": {"quota_throttled_s": 0.5}},
            "the cgroup's CPU quota stopped the session for 0.500 s, its rounds took 8.00 s",
        ),
        ({"after": {"quota_throttled_s": 0.03}}, None),
        ({"after": {"quota_throttled_s": None}}, None),
        ({"after": {"throttle_count": 3}}, "the CPU throttled 3 times because of its heat"),
        ({"machine": {"throttle_count": 7}}, None),
        ({"after": {"throttled": "under-voltage"}}, "the firmware says: under-voltage"),
        ({"machine": {"throttled": "hot"}}, "the firmware says: hot"),
        ({"after": {"throttled": ""}}, None),
        ({"after": {"temperature_c": 85.0}}, "the CPU is 85.0 °C hot, and boards throttle from 85 °C on"),
        ({"after": {"temperature_c": 84.9}}, None),
        ({"after": {"governor": "powersave"}}, "the governor changed from performance to powersave"),
        (
            {"machine": {"power_mode": "MAXN"}, "after": {"power_mode": "15W"}},
            "the power mode changed from MAXN to 15W",
        ),
        ({"after": {"affinity": [1, 0]}}, "the CPUs that may be used changed from 0, 1, 2, 3 to 0, 1"),
        ({"after": {"usable_cores": 2}}, "the number of usable cores changed from 4 to 2"),
        ({"after": {"governor": None, "affinity": None}}, None),
        ({"session": {"waited_s": 500.0}}, None),
        ({"after": {"load_1m": 9.0}}, None),
        (
            {"aa": 1.05, "spread": 0.0},
            "A/A: the same artefact twice differs by +5.0 % [+5.0 to +5.0], all of it beyond ±2 %",
        ),
        (
            {"aa": 0.95, "spread": 0.0},
            "A/A: the same artefact twice differs by −5.0 % [−5.0 to −5.0], all of it beyond ±2 %",
        ),
        ({"aa": 1.019, "spread": 0.0}, None),
        ({"aa": None}, None),
    ],
)
def test_what_disturbs_a_session(make_bundle: Make, bundle: dict[str, Any], said: str | None) -> None:
    assert disturbed(make_bundle(**bundle)) == ((said,) if said else ())


@pytest.mark.parametrize(
    ("rounds", "last", "said"),
    [
        (40, 3050.0, "the clock fell from 3400 to 3050 MHz (medians of the first and the last 9 of 39 rounds)"),
        (40, 3061.0, None),
        (40, 3900.0, None),
        (9, 2000.0, "the clock fell from 3400 to 2000 MHz (medians of the first and the last 2 of 8 rounds)"),
        (8, 2000.0, None),
    ],
)
def test_a_clock_that_fell(make_bundle: Make, edit_json: Edit, rounds: int, last: float, said: str | None) -> None:
    """One reading is missing, as some drivers at times give none."""
    bundle = make_bundle(rounds=rounds)

    def fall(found: dict[str, Any]) -> None:
        found["rounds"][0]["mhz"] = None
        for played in found["rounds"][-(rounds // 4) :]:
            played["mhz"] = last

    edit_json(bundle / "measurements/measurement.json", fall)
    assert disturbed(bundle) == ((said,) if said else ())


def test_every_disturbance_is_told(make_bundle: Make) -> None:
    """A session may have many; rounds without a time (none ran) are no reason to divide by it."""
    bundle = make_bundle(played={"busy_cpu_s": 0.8, "steal_s": 0.1}, after={"throttle_count": 1, "usable_cores": 3})
    assert [line.split(" ")[1] for line in disturbed(bundle)] == ["processes", "hypervisor", "CPU", "number"]
    assert disturbed(make_bundle(rounds=0)) == ()
    assert disturbed(make_bundle(played={"wall_s": 0.0})) == ()
