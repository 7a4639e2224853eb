"""`kdc measure` of a language model: one session of kdc's own bench.py on this machine."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor.errors import EXIT_INCONCLUSIVE, KdcError
from compressor.measure.devices.local import LocalLink, local_link
from compressor.measure.runners import require_own_runners
from compressor.measure.session import publish, staging
from compressor.progress import Progress
from compressor.schema.base import parse, read_json
from compressor.schema.language.bundle import LanguageBundle
from compressor.schema.language.measurement import LanguageMeasurement
from compressor.terminal.printable import one_line

__all__ = ["measure_language"]

HEADER = 4096
"""Bytes that a .npy file may have before its numbers."""
LONGEST = 1_000


@dataclass
class _Heard:
    """What bench.py has told: the noun but for its rounds and blocks, these, and who broke off."""

    state: dict[str, Any] | None = None
    rounds: list[Any] = field(default_factory=list)
    blocks: list[Any] = field(default_factory=list)

    def measurement(self) -> LanguageMeasurement:
        if self.state is None:
            raise KdcError("bench.py ended without a word of what it measured", "measure again", EXIT_INCONCLUSIVE)
        failed = {each["variant"] for each in self.state["contestants"] if each.get("error") is not None}
        blocks = [block for block in self.blocks if block["variant"] not in failed]
        return parse(LanguageMeasurement, {**self.state, "rounds": self.rounds, "blocks": blocks}, "bench.py")


def measure_language(bundle: Path, *, rounds: int, seconds: float, progress: Progress) -> LanguageMeasurement:
    """Measure every variant of `bundle` on this machine; leaves BUNDLE/measurements/ with what was measured.

    `rounds` of one answer of each variant, fewer where they take longer than `seconds` in all. Raises KdcError where
    nothing could be measured; a variant that could not run says so in what is returned.
    """
    manifest = read_json(bundle / "bundle.json", LanguageBundle)
    require_own_runners(bundle, manifest)
    heard = _Heard()
    with staging(bundle) as folder, local_link(bundle, None) as link:
        for event in link.bench(["--rounds", str(rounds), "--seconds", f"{seconds:.1f}", "--no-throughput"]):
            _take_in(event, heard, progress)
        measurement = heard.measurement()
        _fetch(link, measurement, manifest, folder)
        publish(measurement, folder, bundle)
    return measurement


def _take_in(event: dict[str, Any], heard: _Heard, progress: Progress) -> None:
    """One line of bench.py (targets/README.md has them all)."""
    if "progress" in event:
        progress.at(one_line(event["doing"]), int(event["progress"]), int(event["total"]))
    elif "round" in event:
        heard.rounds.append(event["round"])
        heard.blocks += event["blocks"]
    elif "state" in event:
        heard.state = event["state"]
    elif "note" in event:
        progress.note(f"bench.py: {one_line(event['note'])[:LONGEST]}")
    elif "warning" in event:
        progress.warn(one_line(event["warning"])[:LONGEST])
    else:
        raise KdcError(f"bench.py says what kdc does not understand: {one_line(event)[:100]}")


def _fetch(link: LocalLink, measurement: LanguageMeasurement, manifest: LanguageBundle, folder: Path) -> None:
    for contestant in measurement.contestants:
        for name, _ in contestant.files:
            split = name.removeprefix(f"{contestant.variant}.").removesuffix(".npy")
            if split not in ("validation", "test") or not re.fullmatch(r"[\w.-]+", contestant.variant):
                raise KdcError(f"bench.py names what it has of {contestant.variant!r} {name!r}")
            link.fetch(name, folder / name, HEADER + 4 * manifest.corpus(split).tokens)
