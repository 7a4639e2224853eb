"""The transfer set: which training samples a student is shown, and which of them with a label."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compressor.data.labels import listed
from compressor.data.samples import UNLABELLED, Dataset, Split, drawn
from compressor.errors import KdcError, did_you_mean
from compressor.names import spelt
from compressor.progress import Progress
from compressor.schema.recipe import Transfer

__all__ = ["classes_without", "transfer_set"]


def transfer_set(data: Dataset, transfer: Transfer, *, labels_only: bool, progress: Progress) -> Dataset:
    """`data` with its training split cut to what `transfer` leaves of it; validation and test stay as they are.

    Hinton, Vinyals & Dean 2015 (arXiv 1503.02531): section 3 leaves a class out, section 6 keeps 3 % of the labels.
    `labels_only`: nothing but labels teaches, so that samples without one are of no use. Of `info` only the notes
    change. Raises KdcError for an unknown class, or where no samples are left.
    """
    without = classes_without(transfer, data.info.class_names)
    labels, notes = data.train.labels.copy(), []
    kept = ~np.isin(labels, without)
    if without:
        names = [data.info.class_names[number] for number in without]
        unseen = len(labels) - int(kept.sum())
        notes.append(f"transfer.without: all {unseen:,} {data.samples} of {listed(names)} are left out of train")
        if data.info.unlabelled is not None:
            notes.append(f"transfer.without: the unlabelled {data.samples} may show {listed(names)} all the same")
    if transfer.labelled < 1:
        had = kept & (labels != UNLABELLED)
        keeps = had & _keeps_label(data.train, labels, transfer.labelled)
        labels[~keeps] = UNLABELLED
        lost = had & ~keeps
        fate = "are left out of train" if transfer.drop_unlabelled else "lose it"
        notes.append(
            f"transfer.labelled {transfer.labelled:g}: {int(keeps.sum()):,} training {data.samples} keep their label, "
            f"{int(lost.sum()):,} {fate}"
        )
        if transfer.drop_unlabelled:
            kept &= ~lost
    if labels_only and (useless := int((kept & (labels == UNLABELLED)).sum())):
        kept &= labels != UNLABELLED
        notes.append(f"{useless:,} training {data.samples} have no label and are left out: only labels teach here")
    if not kept.any():
        raise KdcError(f"transfer: no training {data.samples} are left", "leave fewer classes out")
    if not notes:
        return data
    for note in notes:
        progress.note(note)
    rows = np.flatnonzero(kept)
    info = data.info.model_copy(update={"notes": (*data.info.notes, *notes)})
    return replace(data, info=info, train=data.train.part(rows, labels[rows]))


def classes_without(transfer: Transfer, class_names: Sequence[str]) -> list[int]:
    """The numbers of the classes that are left out, in the recipe's order; raises KdcError for an unknown name, or
    where no class stays."""
    wanted = [spelt(name) for name in transfer.without]
    for name in wanted:
        if name not in class_names:
            near = did_you_mean(name, class_names)
            raise KdcError(f"recipe transfer.without: the data has no class {name}{near}; its: {listed(class_names)}")
        if wanted.count(name) > 1:
            raise KdcError(f"recipe transfer.without names {name} twice", "name each class once")
    if wanted and len(wanted) == len(class_names):
        raise KdcError("recipe transfer.without names every class, so nothing could be learned")
    return [class_names.index(name) for name in wanted]


def _keeps_label(train: Split, labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which samples keep their label, bool [N]: that share of each class, and at least one.

    By a hash of what they show, not by the seed, so that seeds vary the training and not the set; and not by the hash
    that splits validation and test off. A larger share holds the smaller ones.
    """
    keeps = np.zeros(len(train), np.bool_)
    for label in np.unique(labels[labels != UNLABELLED]):
        rows = np.flatnonzero(labels == label).tolist()
        ordered = sorted(rows, key=lambda row: drawn(train, row, "labelled"))
        keeps[ordered[: max(1, int(len(rows) * share + 0.5))]] = True
    return keeps
