"""Whether the folders that lie side by side can be classes, or look like something else: splits, a wrapper, copies.

A wrong guess makes classes of "training_set" and "test_set" and trains on the test images, without a word. So what
looks like splits is asked about; a class may have folders of its own (one a video), and be called train.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from compressor.data.labels import listed
from compressor.data.split_words import is_train_alone, sounds_like, split_in, words_of
from compressor.names import spelt

__all__ = ["Inside", "doubt", "masks_told"]

# Numbered parts of a recording or of a group of people: these are what classes are divided into, not classes.
PARTS = re.compile(
    r"(.*[\W_])?(video|vid|clip|seq|sequence|take|session|scene|subject|person|patient|participant|actor|speaker|user|"
    r"shot|cam|camera|day|part|batch|frame|frames|burst|series|track|trial|rep|view|angle|site|v|p|s)[\W_]*\d+|\d{3,}",
    re.IGNORECASE,
)
# What numbered parts of one set are called, as in images_001, images_002.
SHARES = frozenset(
    ("part", "images", "image", "img", "imgs", "batch", "chunk", "shard", "folder", "fold", "split", "subset", "frames")
)
WRAPPERS = frozenset({"data", "dataset", "images", "image", "imgs", "img", "photos", "archive", "jpegimages"})
# What images are drawn over with, as a folder beside them: "images" and "masks" are no classes.
DRAWN = frozenset(
    {
        *("mask", "masks", "annotation", "annotations", "annots", "label", "labels", "trimap", "trimaps", "gt"),
        *("groundtruth", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "overlays"),
    }
)
MASK = re.compile(r"(.+)[ _.-](?:mask|seg|segmentation|gt|groundtruth|annotation)(?:[_-]?\d+)?\.[^./]+", re.IGNORECASE)


@dataclass(frozen=True)
class Inside:
    """What lies in a folder: its folders, and whether there are images beside them. Where it holds nothing but one
    folder, what lies in that one; `doubled`: which has the same name, as archives leave it when they are unpacked."""

    folders: tuple[str, ...]
    images: bool
    doubled: bool = False

    @property
    def classes(self) -> frozenset[str]:
        """The folders that could be classes, where this folder is none."""
        names = {spelt(name).casefold() for name in self.folders if not PARTS.fullmatch(spelt(name))}
        return frozenset() if self.images else frozenset(names)


def doubt(folders: Mapping[str, Inside]) -> str:
    """Why the folders with these names may be no classes, as the end of a sentence that begins with where they lie;
    "" where nothing speaks against it."""
    names = list(folders)
    sounding = [name for name in names if sounds_like(name, names)]
    if len(sounding) > 1:
        return f"{_names(sounding)}, which sound like splits, not like classes"
    for name in sounding:
        if not is_train_alone(name) or folders[name].classes:
            holds = f" and holds {_names(folders[name].folders)}" if folders[name].classes else ""
            siblings = _names(sibling for sibling in names if sibling != name)
            return f"{name}, which sounds like a split{holds}" + (f", beside {siblings}" if siblings else "")
    if len(names) > 1 and _are_parts(names):
        return f"{_names(names)}, which sound like parts of one set, not like classes"
    for name, inside in folders.items():
        within = [inner for inner in inside.folders if sounds_like(inner, inside.folders)]
        if len(within) > 1:
            return f"{name}, which holds {_names(within)}: they sound like splits"
        if len(inside.classes) > 1 and split_in(name)[0]:
            return f"{name}, which sounds like a split and holds the folders {_names(inside.folders)}"
        if len(inside.classes) > 1 and spelt(name).casefold() in WRAPPERS:
            return f"{name}, which holds the folders {_names(inside.folders)}: these look like the classes"
        if len(inside.classes) > 1 and inside.doubled:
            return f"{name}, which holds another {name} with the folders {_names(inside.folders)}"
    return _drawn(names) or _same(folders)


def _drawn(names: Sequence[str]) -> str:
    """Whether some of these are images, and others what is drawn over them."""
    plain = {"".join(words_of(name)): name for name in names}
    images, drawn = ([name for word, name in plain.items() if word in words] for words in (WRAPPERS, DRAWN))
    if not images or not drawn:
        return ""
    return (
        f"{_names(images)} and {_names(drawn)}, which sound like images and what is drawn over them, not like classes"
    )


def masks_told(ids: Sequence[str]) -> tuple[str, ...]:
    """A note where files are called like others and "mask" or the like: they are learned from as images are."""
    plain = {sample_id.rpartition(".")[0] for sample_id in ids}
    masks = [sample_id for sample_id in ids if (match := MASK.fullmatch(sample_id)) and match[1] in plain]
    subject = f"{len(masks):,} images are called like masks of others beside them, and are learned from like these"
    return (f"{subject}, e.g. {min(masks)}",) if masks else ()


def _are_parts(names: Iterable[str]) -> bool:
    """Whether these are numbered parts of one set: the same words and a number, the last word one of SHARES."""
    words = [words_of(name) for name in names]
    alike = len({tuple(parts[:-1]) for parts in words}) == 1
    return alike and all(len(parts) > 1 and parts[-1].isdecimal() and parts[-2] in SHARES for parts in words)


def _same(folders: Mapping[str, Inside]) -> str:
    """Whether folders differ in a split's word alone, or hold folders of the same names."""
    plain = {spelt(name).casefold() for name in folders}
    flat = sum(inside.images for inside in folders.values())
    for name, inside in folders.items():
        copies = (inside.classes & plain) - {spelt(name).casefold()}
        if len(copies) > 1:
            return f"{name}, which holds folders named like those beside it ({_names(sorted(copies))})"
    by_stem: dict[tuple[str, ...], dict[str, str]] = {}
    by_inside: dict[frozenset[str], list[str]] = {}
    for name, inside in folders.items():
        split, stem = split_in(name)
        if split:
            by_stem.setdefault(stem, {}).setdefault(split, name)
        if len(inside.classes) > 1:
            by_inside.setdefault(inside.classes, []).append(name)
    pairs = [[*by_split.values()] for by_split in by_stem.values() if len(by_split) > 1]
    if pairs:
        return f"{_names(pairs[0])}, which sound like splits, not like classes"
    # Not all may hold all classes. Where more of the folders hold images themselves, these are the classes.
    groups = sorted(by_inside.items(), key=lambda group: -len(group[1]))[:100]
    if (most := groups[:1]) and len(most[0][1]) > 1 and len(most[0][1]) >= flat:
        return f"{_names(most[0][1])}, which hold the same folders ({_names(sorted(most[0][0]))})"
    for (classes, first), (other_classes, second) in combinations(groups, 2):
        shared = classes & other_classes
        if (
            len(shared) > 1
            and 2 * len(shared) >= min(len(classes), len(other_classes))
            and len(first) + len(second) >= flat
        ):
            return f"{_names([first[0], second[0]])}, which hold the same folders ({_names(sorted(shared))})"
    return ""


def _names(names: Iterable[str]) -> str:
    return listed(names, 4)
