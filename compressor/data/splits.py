"""Which sample stands in which split, where the data does not say so itself."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from compressor.errors import KdcError

__all__ = ["WANTED", "split_off"]

WANTED = ("train", "validation", "test")
PERCENT = {"test": 20, "validation": 10}


def split_off(
    digests: Sequence[bytes], labels: Sequence[str], missing: Sequence[str], samples: str = "images"
) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Splits the samples of train into what stays there and the splits that are `missing`: `{split: rows}`, and notes.
    `digests`: of what the samples show, one each; `samples`: what they are called.

    A teacher and a student that are trained with different seeds, or on the same images from another folder or table,
    must see the same split, or test samples leak into the student through its teacher. So the split knows neither a
    seed nor the order of files nor their names, nor other classes: within a class, images are ordered by their
    digest, and the first share is taken.

    Copies go into one split, all of them: an image that was trained on tests nothing. Those that stand under several
    labels are split with the first of these classes. A class that has too few different images raises KdcError.
    Samples that have no classes bear the label "".
    """
    copies: dict[bytes, Counter[str]] = defaultdict(Counter)
    for digest, label in zip(digests, labels, strict=True):
        copies[digest][label] += 1
    different = Counter(label for under in copies.values() for label in under)
    for label, count in different.items():
        if count <= len(missing):
            raise _too_few(label, list(labels).count(label), count, missing, samples)
    sizes_by_label: dict[str, dict[bytes, int]] = defaultdict(dict)
    for digest in sorted(copies):
        first = min(copies[digest])
        sizes_by_label[first][digest] = copies[digest][first]
    split_of: dict[bytes, str] = {}
    for sizes in sizes_by_label.values():
        split_of |= _shares(sizes, missing)
    rows_of: dict[str, list[int]] = {name: [] for name in ("train", *missing)}
    for row, digest in enumerate(digests):
        rows_of[split_of.get(digest, "train")].append(row)
    return rows_of, _notes(rows_of, missing, len(digests), any(labels))


def _shares(sizes: dict[bytes, int], missing: Sequence[str]) -> dict[bytes, str]:
    """The split of each image of a class that does not stay in train. `sizes`: how many copies there are of each, in
    the order in which they are taken.

    A share is counted in samples. Images with more copies than are still wanted are passed over, so that one that
    stands there a hundred times does not fill a split; where all are, one with the fewest copies is taken.
    """
    split_of: dict[bytes, str] = {}
    left = dict(sizes)
    for number, name in enumerate(missing):
        if len(left) <= len(missing) - number:  # the class has others, which are split with another class
            break
        wanted = max(1, (sum(left.values()) * PERCENT[name] + 50) // 100)
        most = len(left) - (len(missing) - number)  # each split after this one gets one, and train
        taken: list[bytes] = []
        for digest, size in left.items():
            if size <= wanted and len(taken) < most:
                taken.append(digest)
                wanted -= size
        for digest in taken or [min(left, key=lambda digest: left[digest])]:
            split_of[digest] = name
            del left[digest]
    return split_of


def _notes(rows_of: dict[str, list[int]], missing: Sequence[str], total: int, classes: bool) -> tuple[str, ...]:
    notes = []
    for name in missing:
        count = len(rows_of[name])
        stratified = ", stratified by class" if classes else ""
        notes.append(f"{name}: {PERCENT[name]} % of train split off{stratified} ({count:,} of {total:,})")
        total -= count
    return tuple(notes)


def _too_few(label: str, count: int, different: int, missing: Sequence[str], samples: str) -> KdcError:
    splits = " and ".join(missing)
    if not label:
        raise KdcError(
            f"train has {different} different {samples}, and splitting {splits} off takes at least {len(missing) + 1}",
            f"add {samples}, or give the data its own {splits}",
        )
    copies = f", {'all copies of one' if different == 1 else f'only {different} different ones'}"
    return KdcError(
        f"class {label} has {count} {samples if count != 1 else samples.removesuffix('s')} in train"
        f"{copies if different < count else ''}; "
        f"splitting {splits} off takes at least {len(missing) + 1}{' different ones' if different < count else ''} of "
        "each class",
        f"add {samples} of {label}, or give the data its own {splits}",
    )
