"""`kdc measure`: one session with a device. Takes in what bench.py says, decides when to sample on, keeps what arrived.

kdc's own bench.py does the measuring, here or on the device, the same script that runs where kdc is not installed.
The scripts that lie in the bundle are for that, and must be the same; kdc runs none of them. A connection that is lost
is taken up again; where that fails, the samples that arrived are kept.
"""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor.errors import EXIT_INCONCLUSIVE, KdcError, os_error
from compressor.files.bundle_change import new_folder
from compressor.measure.devices import DeviceUrl, Kind, Link, open_link
from compressor.measure.runners import require_own_runners
from compressor.progress import Progress
from compressor.schema.base import parse, read_json, write_json
from compressor.schema.bundle import Bundle
from compressor.schema.language.measurement import LanguageMeasurement
from compressor.schema.measurement import Block, Contestant, Measurement, Round
from compressor.terminal.printable import one_line

__all__ = ["RETRY_AFTER_S", "Samples", "Undecided", "listen", "measure_bundle", "publish", "staging"]

Undecided = Callable[[Measurement], tuple[str, ...]]
"""What more rounds could decide, in words; nothing: it is enough. Raises KdcError for a measurement of something
else."""

RETRY_AFTER_S = (2.0, 4.0, 8.0, 16.0, 30.0)
"""Before each attempt to reach a device again."""
PUBLISHED = "measurement.json"
MOST_EVENTS = 20_000_000
MOST_BLOCKS = 1_000
MOST_NOTES = 1_000
LONGEST_NOTE = 1_000
"""A device that sends without end is not listened to without end. A session has a thousandth of these."""
HEADER = 4096
"""Bytes that a .npy file may have before its numbers."""
LAYERS = ".layers.json"
MOST_LAYERS = 64_000_000
"""Bytes of the times of a model's layers. A thousand layers have 200 kB."""
EXPLAINED_CALLS = 30
"""In which layers are timed."""


@dataclass
class Samples:
    """What has arrived. `state`: the last Measurement that bench.py told, without its rounds and blocks, and `first`
    the first one; `failed`: the contestants that broke off, on whichever connection. `target`: rounds until the next
    look. `predict`: whether the test split is gone through; `only`: these variants alone; `fresh_starts`: of each, None
    for bench.py's own number; `explain`: calls in which layers are timed.
    """

    target: int
    seconds: float
    throughput: bool
    predict: bool = True
    only: tuple[str, ...] = ()
    fresh_starts: int | None = None
    explain: int = 0
    state: Measurement | None = None
    first: Measurement | None = None
    failed: dict[str, Contestant] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    connections: int = 0
    looks: int = 0
    notes: int = 0
    enough: bool = False
    lost: str | None = None

    def take_state(self, values: object) -> None:
        told = dict(values) if isinstance(values, dict) else {}
        self.state = parse(Measurement, {**told, "rounds": [], "blocks": []}, "the device's measurement")
        self.first = self.first or self.state
        for contestant in self.state.contestants:
            if contestant.error is not None:
                self.failed.setdefault(contestant.variant, contestant)

    def fail(self, name: str, reason: str) -> None:
        """A contestant broke off. It stays failed, though it may run to its end after a lost connection."""
        for contestant in self.state.contestants if self.state else ():
            if contestant.variant == name and contestant.error is None:
                kept = {"variant", "copy_of", "requested_precision", "threads"}
                self.failed.setdefault(name, Contestant(**contestant.model_dump(include=kept), error=reason))

    def measurement(self, kind: Kind, arrived: Path | None = None) -> Measurement:
        """All of it as one Measurement. `arrived`: the folder of the logits; those that are not there are not named."""
        if self.state is None or self.first is None:
            raise KdcError("bench.py ended without a word of what it measured", "measure again", EXIT_INCONCLUSIVE)
        contestants = [self.failed.get(contestant.variant, contestant) for contestant in self.state.contestants]
        if arrived is not None:
            contestants = [_as_arrived(contestant, arrived) for contestant in contestants]
        update = {
            "started": self.first.started,
            "machine_before": self.first.machine_before,
            "device": kind,
            "connections": self.connections,
            "lost": self.lost,
            "looks": max(1, self.looks),
            "contestants": tuple(contestants),
            "rounds": tuple(self.rounds),
            # Of a contestant that broke off in the end, no block counts, though some had arrived.
            "blocks": tuple(block for block in self.blocks if block.variant not in self.failed),
        }
        return self.state.model_copy(update=update)


def measure_bundle(
    bundle: Path,
    url: DeviceUrl,
    *,
    python: str | None,
    rounds: int,
    seconds: float,
    throughput: bool,
    explain: bool = False,
    undecided: Undecided,
    progress: Progress,
    into: Path | None = None,
    stop: threading.Event | None = None,
) -> Measurement:
    """Measure every variant of `bundle` on a device; leaves BUNDLE/measurements/ with what was measured, or
    measurements/ in the folder `into`.

    After `rounds` of blocks it asks `undecided` whether more would tell, and doubles them until nothing is open or
    the rounds have taken `seconds`. `python`: the interpreter on the device. `explain`: time the layers too, at the
    end. Raises KdcError where nothing could be measured; a session that broke off is a Measurement whose `lost` says
    why. Once another thread sets `stop` it ends by KeyboardInterrupt.
    """
    into, stop = into or bundle, stop or threading.Event()
    manifest = read_json(bundle / "bundle.json", Bundle)
    require_own_runners(bundle, manifest)
    samples = Samples(rounds, seconds, throughput, explain=EXPLAINED_CALLS if explain else 0)
    pauses = iter(() if url.kind == "local" else RETRY_AFTER_S)
    with staging(into) as folder:
        while True:
            reached = False
            try:
                with open_link(url, bundle, manifest, python=python, progress=progress) as link:
                    reached = True
                    listen(link, samples, undecided, progress, stop)
                    _fetch(link, samples, manifest, folder)
                break
            except KdcError as error:
                _go_on(stop)
                # What keeps it from being reached again (its name, its key, its disk) must not cost the samples.
                if samples.state is None or (reached and error.exit_code != EXIT_INCONCLUSIVE):
                    raise
                pause = next(pauses, None)
                if pause is None:
                    samples.lost = error.message
                    progress.warn(f"{error.message}; the samples of {len(samples.rounds)} rounds are kept")
                    break
                progress.warn(f"{error.message}; trying again in {pause:g} s")
                stop.wait(pause)
                _go_on(stop)
        measurement = samples.measurement(url.kind, folder)
        undecided(measurement)  # refuses one that is not of this bundle, before it takes the place of another
        publish(measurement, folder, into)
    return measurement


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise KeyboardInterrupt


def listen(
    link: Link, samples: Samples, undecided: Undecided, progress: Progress, stop: threading.Event | None = None
) -> None:
    """Run bench.py to its end, from where an earlier connection was lost; `stop`: see `measure_bundle`."""
    rounds = 0 if samples.enough else max(1, samples.target - len(samples.rounds))
    samples.target = len(samples.rounds) + rounds
    following = samples.rounds[-1].number + 1 if samples.rounds else 0
    left = max(0.0, samples.seconds - sum(played.wall_s for played in samples.rounds))
    arguments = ["--ask", "--rounds", str(rounds), "--seconds", f"{left:.1f}", "--first-round", str(following)]
    arguments += [] if samples.throughput else ["--no-throughput"]
    arguments += [] if samples.predict else ["--no-predict"]
    arguments += ["--fresh-starts", str(samples.fresh_starts)] if samples.fresh_starts is not None else []
    arguments += ["--variant", *samples.only] if samples.only else []
    arguments += ["--explain", str(samples.explain)] if samples.explain else []
    samples.connections += 1
    for number, event in enumerate(link.bench(arguments)):
        if stop is not None:
            _go_on(stop)
        if number >= MOST_EVENTS:
            raise KdcError(f"bench.py has sent {MOST_EVENTS:,} events and does not end")
        try:
            _take_in(event, link, samples, undecided, progress)
        except (KeyError, TypeError, ValueError):
            raise KdcError(f"bench.py says what kdc does not understand: {one_line(event)[:100]}") from None


def _take_in(event: dict[str, Any], link: Link, samples: Samples, undecided: Undecided, progress: Progress) -> None:
    """One line of bench.py (targets/README.md has them all)."""
    if "progress" in event:
        progress.at(one_line(event["doing"]), int(event["progress"]), int(event["total"]))
    elif "round" in event:
        if len(samples.rounds) >= samples.target or len(event["blocks"]) > MOST_BLOCKS:
            raise KdcError("bench.py sends more rounds or blocks than it was asked for")
        samples.rounds.append(parse(Round, event["round"], "a round of the device's"))
        samples.blocks += [parse(Block, block, "a block of the device's") for block in event["blocks"]]
        for name, reason in dict(event.get("failed", {})).items():
            samples.fail(str(name), one_line(reason))
    elif "state" in event:
        samples.take_state(event["state"])
    elif "look" in event:
        link.say(_look(samples, bool(event.get("late")), link.kind, undecided, progress))
    elif "note" in event or "warning" in event:
        samples.notes += 1
        if samples.notes > MOST_NOTES:
            raise KdcError(f"bench.py has sent {MOST_NOTES:,} notes and warnings and does not end")
        if "note" in event:
            progress.note(f"bench.py: {one_line(event['note'])[:LONGEST_NOTE]}")
        else:
            progress.warn(one_line(event["warning"])[:LONGEST_NOTE])
    else:
        raise KeyError


def _look(samples: Samples, late: bool, kind: Kind, undecided: Undecided, progress: Progress) -> str:
    """The answer to bench.py: more rounds while a verdict is open and there is time."""
    samples.looks += 1
    open_lines = undecided(samples.measurement(kind))
    done = len(samples.rounds)
    if open_lines and not late:
        samples.target = 2 * done
        progress.note(f"after {done} rounds these are still open: {', '.join(open_lines)}; sampling on to {2 * done}")
        return f"more {done}"
    if open_lines:
        progress.note(f"the time is up after {done} rounds with these still open: {', '.join(open_lines)} (--seconds)")
    samples.enough = True
    return "enough"


def _fetch(link: Link, samples: Samples, manifest: Bundle, folder: Path) -> None:
    """The logits and the times of layers of every contestant that has some."""
    logits = HEADER + 4 * manifest.eval.n * len(manifest.student.class_names)
    for contestant in samples.measurement(link.kind).contestants:
        wanted = {f"{contestant.variant}.npy": logits, f"{contestant.variant}{LAYERS}": MOST_LAYERS}
        for name, _ in contestant.files:
            # A device may be anything: its names are not taken for paths.
            if name not in wanted or not re.fullmatch(r"[\w.-]+", contestant.variant):
                kind = "logits" if name == contestant.logits else "layers"
                raise KdcError(f"the device names the {kind} of {contestant.variant!r} {name!r}")
            link.fetch(name, folder / name, wanted[name])


def _as_arrived(contestant: Contestant, folder: Path) -> Contestant:
    """Without the files that are not there."""
    gone = [name for name, _ in contestant.files if not (folder / name).exists()]
    kinds = [kind for kind in ("logits", "layers") if getattr(contestant, kind) in gone]
    return contestant.model_copy(update={f"{kind}{part}": None for kind in kinds for part in ("", "_sha256")})


@contextmanager
def staging(bundle: Path) -> Iterator[Path]:
    """A folder beside the measurements for those that are not complete."""
    measurements = bundle / "measurements"
    try:
        folder = new_folder(measurements, "arriving")
    except OSError as error:
        raise os_error(error, f"writing to {measurements}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(folder: Path) -> set[Path]:
    """What lies beside a measurement and is of it."""
    return {*folder.glob("*.npy"), *folder.glob(f"*{LAYERS}")}


def publish(measurement: Measurement | LanguageMeasurement, folder: Path, bundle: Path) -> None:
    """Put the session in the place of the one before; the measurement last, so that what it names is there."""
    measurements = bundle / "measurements"
    try:
        write_json(folder / PUBLISHED, measurement)
        arrived = sorted(_beside(folder))
        for path in arrived:
            path.replace(measurements / path.name)
        (folder / PUBLISHED).replace(measurements / PUBLISHED)
        for path in _beside(measurements) - {measurements / path.name for path in arrived}:
            path.unlink()
    except OSError as error:
        raise os_error(error, f"writing to {measurements}") from error
