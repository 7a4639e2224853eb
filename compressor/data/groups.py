"""Samples that belong together, as those of one speaker do: no split that is made tears them apart.

A model that was trained on a speaker knows the voice, and what it scores on that speaker says little about others.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from compressor.data.labels import listed
from compressor.data.samples import Sample
from compressor.data.splits import PERCENT
from compressor.errors import KdcError

__all__ = ["groups_told", "split_off_groups"]

Units = dict[str, list[int]]


def split_off_groups(
    digests: Sequence[bytes], labels: Sequence[str], groups: Sequence[str], missing: Sequence[str], samples: str
) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """As `splits.split_off`, but whole groups go into a split. `groups`: of each sample.

    Copies belong together too, so that groups which share one are one. The order in which groups are taken hangs on
    what their samples show, and on nothing else. Each class has a group in every split; raises KdcError for one that
    has too few. Shares are about those of `split_off`: a group is taken whole, or not.
    """
    units = _units(digests, groups)
    counts = {name: Counter(labels[row] for row in rows) for name, rows in units.items()}
    _require_enough(counts, missing, samples)
    total = Counter(labels)
    split_of: dict[str, str] = {}
    for number, name in enumerate(missing):
        left = {unit: count for unit, count in counts.items() if unit not in split_of}
        later = len(missing) - number  # splits after this one, and train
        split_of |= dict.fromkeys(_taken(left, total, PERCENT[name], later), name)
    rows_of: dict[str, list[int]] = {name: [] for name in ("train", *missing)}
    for unit, rows in units.items():
        rows_of[split_of.get(unit, "train")].extend(rows)
    rows_of = {name: sorted(rows) for name, rows in rows_of.items()}
    taken = Counter(split_of.values())
    notes = [
        f"{name}: about {PERCENT[name]} % of train split off, {taken[name]:,} of {len(units):,} whole groups "
        f"({len(rows_of[name]):,} of {len(labels):,} {samples})"
        for name in missing
    ]
    return rows_of, tuple(notes)


def groups_told(splits: Mapping[str, Sequence[Sample]], called: str) -> list[str]:
    """A note on groups that stand in several splits, where the data's own splits tear them apart."""
    held: dict[str, set[str]] = defaultdict(set)
    for name, samples in splits.items():
        for part, row, _ in samples:
            if part.groups and part.groups[row]:
                held[part.groups[row]].add(name)
    torn = [group for group, names in held.items() if len(names) > 1]
    if not torn:
        return []
    return [
        f"{len(torn):,} of {len(held):,} groups have {called} in several splits, e.g. {torn[0]} in "
        f"{listed(sorted(held[torn[0]]))}: what is scored there says less about others"
    ]


def _units(digests: Sequence[bytes], groups: Sequence[str]) -> Units:
    """What is to stay together, each by a hash of what it shows, in the order of these: groups, and groups that have
    a copy in common. A sample without a group is one of its own."""
    named = [f"group {group}" if group else f"sample {row}" for row, group in enumerate(groups)]
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for name, digest in zip(named, digests, strict=True):
        parent[root(name)] = root(f"copy {digest.hex()}")
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(named):
        rows[root(name)].append(row)
    shown = {
        hashlib.sha256("".join(sorted(digests[row].hex() for row in members)).encode()).hexdigest(): members
        for members in rows.values()
    }
    return dict(sorted(shown.items()))


def _require_enough(counts: Mapping[str, Counter[str]], missing: Sequence[str], samples: str) -> None:
    of_class = Counter(label for count in counts.values() for label in count)
    for label, number in of_class.items():
        if number <= len(missing):
            raise KdcError(
                f"class {label} has {samples} of {number} group{'s' if number > 1 else ''} (such as a speaker), and "
                f"splitting {' and '.join(missing)} off takes at least {len(missing) + 1} of each class",
                "give the data its own splits, or leave the column of groups out",
            )


def _taken(left: Mapping[str, Counter[str]], total: Counter[str], percent: int, later: int) -> list[str]:
    """The groups of one split, of those that are `left`, in their order: of each class as many samples as its share
    of `total`, as far as whole groups give them, and one group of each class at least. `later`: so many groups of each
    class stay for other splits."""
    wanted = {label: max(1, (count * percent + 50) // 100) for label, count in total.items()}
    remaining = Counter(label for count in left.values() for label in count)
    held: Counter[str] = Counter()
    taken: list[str] = []

    def take(unit: str) -> None:
        taken.append(unit)
        held.update(left[unit])
        remaining.subtract(left[unit].keys())

    def may_go(unit: str) -> bool:
        return unit not in taken and all(remaining[label] > later for label in left[unit])

    for unit, count in left.items():
        fits = all(held[label] + number <= wanted[label] for label, number in count.items())
        if fits and may_go(unit):
            take(unit)
    for label in total:  # whose groups are all larger than its share: the smallest of them
        able = [unit for unit in left if label in left[unit] and may_go(unit)]
        if not held[label] and able:
            take(min(able, key=lambda unit: sum(left[unit].values())))
    return taken
