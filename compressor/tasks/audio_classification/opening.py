"""open_data: from a reference to checked splits of sounds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from compressor.data.checked import (
    absent_classes,
    class_names_of,
    every_class_in_train,
    fingerprint_of,
    in_three,
    split_from,
)
from compressor.data.copies import copies_told
from compressor.data.groups import groups_told
from compressor.data.samples import Dataset, Found, Part, Sample
from compressor.data.splits import WANTED
from compressor.errors import KdcError
from compressor.processes.threads import in_order
from compressor.progress import Progress, Silent, note_once
from compressor.schema.student import DataInfo
from compressor.tasks.audio_classification.containers import require_decoder
from compressor.tasks.audio_classification.reading import Clip, clip_of, digest
from compressor.tasks.audio_classification.sources.table import find

__all__ = ["Checked", "checked", "open_data"]

SILENT = Silent()


@dataclass(frozen=True)
class _Seen:
    """What is known of a sample once it was decoded. `peak`: its largest value; `constant`: all of them are one."""

    clip: Clip
    digest: bytes
    channels: int
    peak: float
    constant: bool


@dataclass
class Checked:
    """Samples that can be used, by split; `clips`, by the part's id and row; `skipped`: the ids of all others; and what
    is to be said of all of them."""

    kept: dict[str, list[Sample]]
    clips: dict[tuple[int, int], Clip] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def load(self, part: Part, row: int) -> Clip:
        return self.clips[id(part), row]


def open_data(
    reference: str,
    *,
    skip_bad: bool = False,
    progress: Progress = SILENT,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """The sounds that `reference` names (see `sources.table.SOURCES`), checked and in three splits.

    Every sound is decoded once, here; those that cannot be raise KdcError, or with `skip_bad` are left out and listed
    in `info.skipped`. Splits that are missing are taken from train, the same way every time; samples that belong
    together (`Part.groups`) stay together. With `class_names`, the data must have exactly these classes, and labels
    follow their order.

    A sample is known by its values, of one channel and at its own rate (`reading.digest`), whatever file they lie in:
    splits are made by that, copies are found by it, and `info.fingerprint` is over it.
    """
    require_decoder()
    listing = find(reference, progress)
    names = class_names_of(listing, class_names, "sound")
    checks = checked(listing, skip_bad, progress)
    every_class_in_train(checks.kept["train"], names, "sounds")
    splits, split_notes = in_three(checks.kept, "sounds")
    notes = [*listing.notes, *checks.notes, *split_notes, *absent_classes(splits, names, "sounds")]
    notes += [*copies_told(splits, "sound", "sounds"), *_of_groups(splits)]
    if checks.skipped:
        notes.append(f"left out {len(checks.skipped)} sounds that cannot be used, e.g. {checks.skipped[0]}")
    for note in notes:
        note_once(progress, note)
    made = {name: split_from(name, splits[name], names, checks.load) for name in WANTED}
    shown = {name: [(part.labels[row], sample) for part, row, sample in splits[name]] for name in WANTED}
    info = DataInfo(
        source=reference,
        fingerprint=fingerprint_of(names, shown),
        class_names=names,
        counts={name: len(split) for name, split in made.items()},
        notes=tuple(notes),
        skipped=checks.skipped,
    )
    return Dataset(info, made["train"], made["validation"], made["test"], "sounds")


def checked(listing: Found, skip_bad: bool, progress: Progress) -> Checked:
    """The samples of a listing, each decoded; raises KdcError for those that cannot be used, and not `skip_bad`."""
    samples = list(listing.samples())
    split_of = {id(part): name for name, part in listing.parts.items()}
    checks, seen, errors, skipped = Checked({name: [] for name in listing.parts}), list[_Seen](), list[KdcError](), []
    with closing(in_order(_examined, samples)) as results:
        for (part, row), result in zip(
            samples, progress.track(results, len(samples), "checking sounds"), strict=True
        ):  # fmt: skip
            if isinstance(result, KdcError):
                errors.append(result)
                skipped.append(part.ids[row])
                continue
            seen.append(result)
            checks.clips[id(part), row] = result.clip
            checks.kept[split_of[id(part)]].append((part, row, result.digest))
    if errors and not skip_bad:
        suffix = f" (and {len(errors) - 1} more sounds)" if len(errors) > 1 else ""
        hint = f"{errors[0].hint}; --skip-bad leaves them out".removeprefix("; ")
        raise KdcError(f"{errors[0].message}{suffix}", hint, errors[0].exit_code)
    for error in errors:
        progress.warn(f"left out: {error.message}")
    checks.skipped, checks.notes = tuple(skipped), tuple(_notes(seen))
    return checks


def _examined(sample: tuple[Part, int]) -> _Seen | KdcError:
    part, row = sample
    try:
        clip, decoded = clip_of(part, row)
    except KdcError as error:
        return error
    values = decoded.values[clip.start : clip.start + clip.length]
    peak, constant = float(np.abs(values).max()), bool((values == values[0]).all())
    return _Seen(clip, digest(clip, decoded), decoded.channels, peak, constant)


def _notes(seen: Sequence[_Seen]) -> Iterator[str]:
    """What the sounds are, once all were decoded."""
    rates, channels = Counter(each.clip.rate for each in seen), Counter(each.channels for each in seen)
    if seen:
        listed = ", ".join(f"{rate:,} Hz ({count:,})" for rate, count in rates.most_common(5))
        more = f" and {len(rates) - 5} more rates" if len(rates) > 5 else ""
        yield f"sample rates: {listed}{more}"
    several = {count: number for count, number in channels.items() if count > 1}
    if several:
        listed = ", ".join(f"{number:,} of {count} channels" for count, number in sorted(several.items()))
        yield f"channels: {listed}; the mean of a sound's channels counts"
    if loud := sum(each.peak > 1.001 for each in seen):
        yield f"{loud:,} sounds have values beyond -1 to 1, and are taken as they are"
    if silent := sum(each.constant for each in seen):
        yield f"{silent:,} sounds are digital silence: all of their values are the same"


def _of_groups(splits: Mapping[str, Sequence[Sample]]) -> list[str]:
    if any(part.groups for samples in splits.values() for part, _, _ in samples):
        return groups_told(splits, "sounds")
    return [
        "no column group or speaker says which sounds belong together: a speaker may be in train and in test, and then "
        "the scores are of known voices"
    ]
