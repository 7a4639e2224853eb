"""The data of a specialist: some classes one by one, and all others as one (Hinton, Vinyals & Dean 2015, arXiv
1503.02531, sec. 5.1)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compressor.data.labels import listed
from compressor.data.samples import Dataset, drawn
from compressor.errors import KdcError, did_you_mean
from compressor.names import spelt
from compressor.schema.student import Specialty

__all__ = ["DUSTBIN", "specialised", "specialty_classes"]

DUSTBIN = "(others)"
"""The class of all that a specialist does not tell apart."""


def specialised(data: Dataset, typed: Sequence[str], seed: int) -> tuple[Dataset, Specialty]:
    """`data` for a specialist of the classes `typed` (see `specialty_classes`), which come first, in the data's order;
    then the dustbin.

    Training: all samples of these classes, and as many of the others (all, where there are fewer), so that each makes
    up a half; drawn by a hash of what they show and `seed`, whatever the samples' order and names. Validation and test:
    all samples, with the new labels. Raises KdcError where the classes are unknown, fewer than two, or all that there
    are.
    """
    before = data.info.class_names
    classes = specialty_classes(typed, before)
    numbers = np.array([classes.index(name) if name in classes else len(classes) for name in before], np.int64)
    labels = numbers[data.train.labels]
    dustbin_rows = np.flatnonzero(labels == len(classes))
    specialty_rows = np.flatnonzero(labels < len(classes))
    ordered = sorted(dustbin_rows.tolist(), key=lambda row: drawn(data.train, row, f"{seed}"))
    rows = np.sort(np.concatenate([specialty_rows, np.array(ordered[: len(specialty_rows)], np.int64)]))
    others_drawn = len(rows) - len(specialty_rows)
    specialty = Specialty(
        classes=classes,
        dustbin=DUSTBIN,
        share=others_drawn / len(rows),
        natural_share=len(dustbin_rows) / (len(specialty_rows) + len(dustbin_rows)),
    )
    drawing = f"{len(specialty_rows):,} training samples of these, {others_drawn:,} of {len(dustbin_rows):,} others"
    note = f"a specialist of {listed(classes)}: {drawing}"
    key = json.dumps([data.info.fingerprint, list(classes), seed])
    info = data.info.model_copy(
        update={
            "class_names": (*classes, DUSTBIN),
            "counts": {**data.info.counts, "train": len(rows)},
            "fingerprint": hashlib.sha256(key.encode()).hexdigest(),
            "notes": (*data.info.notes, note),
        }
    )
    train = data.train.part(rows, labels[rows])
    validation, test = (replace(split, labels=numbers[split.labels]) for split in (data.validation, data.test))
    return replace(data, info=info, train=train, validation=validation, test=test), specialty


def specialty_classes(typed: Sequence[str], class_names: Sequence[str]) -> tuple[str, ...]:
    """The classes that were typed, in the order of `class_names`. Each text is a class, or several with commas between
    them; a class whose own name has commas is found first. Raises KdcError."""
    names = [name for text in typed for name in ([text] if spelt(text) in class_names else text.split(","))]
    wanted = [spelt(name) for name in names]
    for name in wanted:
        if name not in class_names:
            raise KdcError(
                f"--specialty: the data has no class {name!r}{did_you_mean(name, class_names)}",
                f"its classes: {listed(class_names)}",
            )
        if wanted.count(name) > 1:
            raise KdcError(f"--specialty names {name} twice", "name each class once")
    if DUSTBIN in class_names:
        raise KdcError(f"the data has a class {DUSTBIN}, as a specialist calls all others", "rename it")
    if not 2 <= len(wanted) < len(class_names):
        raise KdcError(
            f"--specialty names {len(wanted)} of {len(class_names)} classes",
            "a specialist takes at least 2 classes, and leaves at least one to the others",
        )
    return tuple(name for name in class_names if name in wanted)
