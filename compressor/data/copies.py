"""Images that stand in the data more than once, by what they show: across splits, and under several labels.

Only the same pixels are the same image (`decode.digest`), in whatever file and format. Near copies, such as an image
that was resized, cropped or compressed anew with loss, are not looked for.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from compressor.data.samples import Sample

__all__ = ["copies_told"]

HELD_OUT = (("validation", "train"), ("test", "train"), ("test", "validation"))
"""What is measured on, and what was learned from or chosen on."""


def copies_told(splits: Mapping[str, Sequence[Sample]], sample: str = "image", called: str = "images") -> list[str]:
    """What makes figures worth less, one note each, with a count and an example: held-out images that stand in train
    (or those of test in validation) too, and images that stand under several labels."""
    shown = {name: _by_image(samples) for name, samples in splits.items()}
    notes = []
    for split, holder in HELD_OUT:
        copied = [sample for sample in splits[split] if sample[2] in shown[holder]]
        if copied:
            otherwise = sum(_label(sample) not in shown[holder][sample[2]] for sample in copied)
            under = f", {otherwise:,} of them under another label" if otherwise else ""
            original = next(iter(shown[holder][copied[0][2]].values()))
            example = f"e.g. {_id(copied[0])} (it is {_id(original)})"
            notes.append(f"{len(copied):,} {called} of {split} have an exact copy in {holder}{under}, {example}")
    return notes + [note for name in splits for note in _several_labels(name, shown[name], sample, called)]


def _several_labels(split: str, shown: Mapping[bytes, Mapping[str, Sample]], called_one: str, called: str) -> list[str]:
    """What shows the same and is called otherwise can neither be learned nor answered rightly."""
    several = [under for under in shown.values() if len(under) > 1]
    if not several:
        return []
    (label, sample), (other_label, other_sample), *_ = several[0].items()
    subject = (
        f"1 {called_one} of {split} stands" if len(several) == 1 else f"{len(several):,} {called} of {split} stand"
    )
    return [f"{subject} under several labels, e.g. {_id(sample)} as {label} and {_id(other_sample)} as {other_label}"]


def _by_image(samples: Sequence[Sample]) -> dict[bytes, dict[str, Sample]]:
    """What is shown -> the labels that it stands under -> the first such sample."""
    by_digest: dict[bytes, dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        by_digest[sample[2]].setdefault(_label(sample), sample)
    return by_digest


def _id(sample: Sample) -> str:
    return sample[0].ids[sample[1]]


def _label(sample: Sample) -> str:
    return sample[0].labels[sample[1]]
