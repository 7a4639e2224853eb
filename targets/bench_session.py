"""A measuring session, from the first process to the last, and its place on disk.

Standard library only; runs on Python 3.9 and later. Used by bench.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_build import built_models
    from targets.bench_lengths import run_lengths, run_preprocessing
    from targets.bench_plan import BLOCK_DROPPED, SCHEMA, BenchError, Entry, MissingError, Plan
    from targets.bench_rounds import Latency, attempt, run_rounds, warm_up
    from targets.bench_runner import Contestant, RunnerError
    from targets.bench_streams import run_throughput
    from targets.bench_tell import Teller
    from targets.energy import idle_watts, meter
    from targets.machine_info import machine
else:
    from bench_build import built_models
    from bench_lengths import run_lengths, run_preprocessing
    from bench_plan import BLOCK_DROPPED, SCHEMA, BenchError, Entry, MissingError, Plan
    from bench_rounds import Latency, attempt, run_rounds, warm_up
    from bench_runner import Contestant, RunnerError
    from bench_streams import run_throughput
    from bench_tell import Teller
    from energy import idle_watts, meter
    from machine_info import machine

PUBLISHED = "measurement.json"
LEFT = ("logits", "layers", "validation", "test")  # keys of a contestant's record that name a file
STOPS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))  # Windows has no SIGHUP


class Session:
    """One measuring session, step by step. `state`: the noun Measurement but for its rounds and blocks."""

    def __init__(self, plan: Plan, folder: Path, waited_s: float, teller: Teller) -> None:
        self.plan, self.folder, self.teller = plan, folder, teller
        self.contestants = [self.contestant(entry) for entry in plan.entries]
        self.started = now()
        self.waited_s = waited_s
        self.before = machine()
        self.after = self.before
        self.idle_watts = idle_watts(meter())
        self.varying: dict[str, list[dict[str, Any]]] = {}

    def contestant(self, entry: Entry) -> Contestant:
        return Contestant(entry, self.plan)

    def warm_up(self, contestant: Contestant) -> None:
        warm_up(contestant, self.plan.block_length)

    def run(self) -> dict[str, Any]:
        """The noun Measurement. Logits are left in `folder`."""
        self.look_for_runtimes()
        with built_models(self.contestants, self.plan, self.folder, self.teller):
            return self.measure()

    def measure(self) -> dict[str, Any]:
        try:
            self.load()
            self.teller.event(state=self.state())
            latency = run_rounds(self.contestants, self.plan, self.teller)
            self.after = machine()  # while load, clock and temperature are still those of the blocks
            self.read_memory()
            if self.plan.lengths:
                self.varying["by_length"] = run_lengths(self.contestants, self.plan, self.teller)
        finally:
            for contestant in self.contestants:
                contestant.end()
        if self.plan.window is not None:
            run_throughput(self.contestants, self.plan, self.teller, self.after["memory_available_gb"])
        if self.plan.predict:
            self.predict()
            self.preprocess()
        if self.plan.explain:
            self.explain()
        state = self.state()
        self.teller.event(state=state)
        return {**state, **self.samples(latency)}

    def look_for_runtimes(self) -> None:
        """Start each runner once, to see whether its runtime is there at all: without that of a variant to be judged,
        there is nothing to measure. What it imports then lies in the page cache, so that all starts to come are alike.
        """
        for script in dict.fromkeys(contestant.script for contestant in self.contestants):
            users = [contestant for contestant in self.contestants if contestant.script == script]
            try:
                with closing(users[0].process()) as runner:
                    runner.ask("info")
            except RunnerError as error:
                if error.kind != "missing":
                    continue  # a variant that cannot run says so itself, in what it does
                if any(self.is_needed(contestant.variant) for contestant in users):
                    raise MissingError(str(error)) from error

    def is_needed(self, variant: dict[str, Any]) -> bool:
        """Whether there is nothing to measure without it. What is built on the device is not expected elsewhere."""
        elsewhere = variant.get("build") is not None and self.before["arch"] != self.plan.arch
        return variant["role"] in ("student", "teacher") and not elsewhere

    def load(self) -> None:
        for count, contestant in enumerate(self.contestants, 1):
            if contestant.alive:  # what could not be built is out already
                with attempt(contestant, self.teller):
                    contestant.start()
                    self.warm_up(contestant)
            self.teller.step("loading", count, len(self.contestants), contestant.name)

    def read_memory(self) -> None:
        for contestant in self.contestants:
            if contestant.alive:
                with attempt(contestant, self.teller):
                    contestant.record["peak_rss_mb"] = contestant.ask("memory")["peak_rss_mb"]

    def predict(self) -> None:
        asked = [contestant for contestant in self.contestants if contestant.alive and contestant.copy_of is None]
        for count, contestant in enumerate(asked, 1):
            with attempt(contestant, self.teller):
                out = self.folder / f"{contestant.name}.npy"
                contestant.predict(out)
                contestant.record.update(logits=out.name, logits_sha256=sha256(out))
            self.teller.step("accuracy", count, len(asked), contestant.name)

    def preprocess(self) -> None:
        """Make inputs of raw samples, of a bundle that has any."""
        if told := run_preprocessing(self.contestants, self.plan, self.teller):
            self.varying["preprocessing"] = told

    def explain(self) -> None:
        """Time the layers of each contestant. A failure costs it nothing but these times, and is a warning; a runtime
        that has no profiler is not at fault."""
        asked = [contestant for contestant in self.contestants if contestant.alive and contestant.copy_of is None]
        for count, contestant in enumerate(asked, 1):
            out = self.folder / f"{contestant.name}.layers.json"
            try:
                contestant.profile(out)
                contestant.record.update(layers=out.name, layers_sha256=sha256(out))
            except RunnerError as error:
                contestant.record["no_layers"] = str(error)
                if error.kind != "no-profiler":
                    self.teller.warn(f"{contestant.name}: no times of layers: {error}")
            self.teller.step("layers", count, len(asked), contestant.name)

    def state(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "started": self.started,
            "finished": now(),
            "device": "local",
            "connections": 1,
            "lost": None,
            "looks": 1,
            "waited_s": self.waited_s,
            "idle_watts": self.idle_watts,
            "batch": self.plan.batch,
            "block_length": self.plan.block_length,
            "block_dropped": BLOCK_DROPPED,
            "distinct_inputs": min(
                (contestant.distinct for contestant in self.contestants if contestant.alive), default=0
            ),
            "seed": self.plan.seed,
            "with_throughput": self.plan.window is not None,
            "machine_before": self.before,
            "machine_after": self.after,
            "contestants": [contestant.record for contestant in self.contestants],
            **self.varying,
        }

    def samples(self, latency: Latency) -> dict[str, Any]:
        """Without the blocks of those that failed later: half of them would be taken for all."""
        failed = {contestant.name for contestant in self.contestants if not contestant.alive}
        return {"rounds": latency.rounds, "blocks": [row for row in latency.blocks if row["variant"] not in failed]}


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def session_folder(bundle: Path, alone: bool) -> Iterator[Path]:
    """A folder in BUNDLE/measurements for a session's unfinished files, gone afterwards whatever happened. `alone`: no
    other session runs on this machine, so what earlier ones left there because they were killed may go too."""
    measurements = bundle / "measurements"
    try:
        measurements.mkdir(exist_ok=True)
        for left in measurements.glob(".kdc-tmp.session-*") if alone else ():
            shutil.rmtree(left, ignore_errors=True)
        # kdc passes over such a name, whatever a kill leaves there.
        folder = Path(tempfile.mkdtemp(prefix=".kdc-tmp.session-", dir=measurements))
    except OSError as error:
        raise BenchError(f"cannot write to {measurements}: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(measurement: dict[str, Any], folder: Path) -> Path:
    """Move the session's files to where they belong, the measurement last: what it names is there when it appears."""
    (folder / PUBLISHED).write_text(json.dumps(measurement, allow_nan=False, indent=1) + "\n", encoding="utf-8")
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)  # some renames: not worth stopping half-way
    records = measurement["contestants"]
    names = [record[key] for record in records for key in LEFT if record.get(key)]
    for name in [*names, PUBLISHED]:
        (folder / name).replace(folder.parent / name)
    for left in [*folder.parent.glob("*.npy"), *folder.parent.glob("*.layers.json")]:
        if left.name not in names:  # of a session before
            left.unlink()
    return folder.parent / PUBLISHED
