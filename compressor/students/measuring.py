"""A field of candidates, measured in the tournament that `kdc measure` has: so many at a time, one session after the
other, with the reference in each, so that a machine that drifts is seen to."""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from compressor.errors import EXIT_INCONCLUSIVE, KdcError
from compressor.measure.devices import DeviceUrl, open_link
from compressor.measure.session import RETRY_AFTER_S, Samples, listen
from compressor.progress import Progress
from compressor.schema.measurement import Measurement
from compressor.schema.students import Entrant, Field

__all__ = ["ROUNDS", "SLOWER", "disturbed", "measure_field", "sessions_of"]

ROUNDS = 12
"""Blocks of each entrant: 72 calls that count, as many as a p90 needs."""
AT_ONCE = 16
"""Entrants of a session: each is a process that holds its model."""

SLOWER = 1.15
"""A session in which the reference took so many times what it takes in the median one was disturbed."""
AGAIN = 0.25
"""Of all sessions, at most so many are repeated, the most disturbed first: a busy machine is not measured for hours."""


def sessions_of(field: Field) -> list[tuple[Entrant, ...]]:
    """The entrants, all of a candidate together, in sessions; the reference is the first of each."""
    reference = next(entrant for entrant in field.variants if entrant.name == field.reference)
    sessions: list[list[Entrant]] = [[]]
    by_candidate: dict[str, list[Entrant]] = {}
    for entrant in field.variants:
        if entrant is not reference:
            by_candidate.setdefault(entrant.candidate, []).append(entrant)
    for entrants in by_candidate.values():
        if sessions[-1] and len(sessions[-1]) + len(entrants) >= AT_ONCE:
            sessions.append([])
        sessions[-1] += entrants
    return [(reference, *entrants) for entrants in sessions]


def disturbed(references: Sequence[float | None]) -> list[int]:
    """The sessions to repeat, by their numbers from 0: those in which the reference, with this p50 in milliseconds,
    was SLOWER than in the median session. None: it did not run."""
    ran = {number: p50 for number, p50 in enumerate(references) if p50 is not None}
    usual = median(ran.values()) if ran else math.inf
    slow = sorted((number for number in ran if ran[number] > SLOWER * usual), key=lambda number: -ran[number])
    return sorted(slow[: max(1, math.floor(AGAIN * len(references)))])


def measure_field(
    folder: Path,
    field: Field,
    sessions: Sequence[Sequence[Entrant]],
    url: DeviceUrl,
    python: str | None,
    rounds: int,
    progress: Progress,
) -> Iterator[tuple[Sequence[Entrant], Measurement]]:
    """Measure those `sessions` (`sessions_of`) of the field that lies in `folder`, one after the other. A connection
    that is lost is taken up again where it broke off. Raises KdcError."""
    waiting = deque((entrants, _samples(entrants, rounds)) for entrants in sessions)
    total, pauses = len(waiting), iter(() if url.kind == "local" else RETRY_AFTER_S)
    while waiting:
        begun = False
        try:
            with open_link(url, folder, field, python=python, progress=progress) as link:
                while waiting:
                    entrants, samples = waiting[0]
                    begun = True
                    number = total - len(waiting) + 1
                    progress.note(f"measuring {len(entrants)} artefacts, session {number} of {total}")
                    listen(link, samples, lambda measurement: (), progress)
                    waiting.popleft()
                    pauses = iter(() if url.kind == "local" else RETRY_AFTER_S)
                    yield entrants, samples.measurement(url.kind)
        except KdcError as error:
            first = len(waiting) == total and waiting[0][1].state is None
            pause = None if first or (begun and error.exit_code != EXIT_INCONCLUSIVE) else next(pauses, None)
            if pause is None:
                raise
            progress.warn(f"{error.message}; trying again in {pause:g} s")
            time.sleep(pause)


def _samples(entrants: Sequence[Entrant], rounds: int) -> Samples:
    names = tuple(entrant.name for entrant in entrants)
    return Samples(target=rounds, seconds=600.0, throughput=False, predict=False, only=names, fresh_starts=1)
