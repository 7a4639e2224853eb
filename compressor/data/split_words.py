"""How people call the splits: names that mean one, and names that sound like one."""

import re
from collections.abc import Sequence

from compressor.names import spelt

__all__ = ["SPLIT_NAMES", "is_train_alone", "sounds_like", "split_in", "words_of"]

# Names that mean a split, whatever their case. Every source reads these.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

# Words of a name that say so too, as in training_set, val2017, seg_test or hold-out: too loosely to be taken for it.
WORDS = SPLIT_NAMES | {
    "trainset": "train",
    "trainval": "train",
    "traindata": "train",
    "valset": "validation",
    "valdata": "validation",
    "devset": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "testset": "test",
    "testdata": "test",
    "holdout": "test",
    "heldout": "test",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
    "unsupervised": "unlabelled",
}

# Words that may stand beside one without changing what it is: "test tube" is no split, "test images" is.
BESIDE = frozenset(
    {
        *("set", "sets", "data", "dataset", "split", "subset", "part", "folder", "dir", "image", "images"),
        *("imagery", "img", "imgs", "image", "images", "pic", "pics", "photo", "photos", "frame", "frames"),
        *("crop", "crops", "cropped", "resized", "scaled", "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"),
        *("rgb", "seg", "small", "large", "full", "mini", "tiny", "toy", "raw", "new", "old", "orig", "original"),
        *("final", "clean", "cleaned", "copy", "backup", "bak", "aug", "augmented", "balanced", "filtered"),
        *("sorted", "my", "the", "only", "public", "private", "official", "labelled", "labeled", "annotated"),
        *("labels", "out"),
    }
)


def words_of(name: str) -> list[str]:
    """The words and numbers in a name, in small letters: "ValSet2017 (1)" -> val, set, 2017, 1."""
    apart = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", spelt(name))
    words = re.findall(r"[^\W\d_]+|\d+", apart.casefold())
    for at in range(len(words) - 1, 0, -1):  # hold-out, un_labelled, test set
        if words[at - 1] + words[at] in WORDS:
            words[at - 1 : at + 1] = [words[at - 1] + words[at]]
    return words


def split_in(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The split that a word of `name` speaks of, if any, and the other words."""
    words = words_of(name)
    at = next((at for at, word in enumerate(words) if word in WORDS), None)
    if at is None:
        return None, tuple(words)
    return WORDS[words[at]], (*words[:at], *words[at + 1 :])


def sounds_like(name: str, beside: Sequence[str] = ()) -> str | None:
    """The split that `name` means, or sounds like: a word for it, and nothing but numbers and BESIDE around. None where
    it does not; and not for "valid" where "invalid" is one of the names `beside` it."""
    split, extra_words = split_in(name)
    if split is None or not all(_says_nothing(word) for word in extra_words):
        return None
    if "valid" in words_of(name):
        opposites = {spelt(name).casefold().replace("valid", no) for no in ("invalid", "not valid", "not_valid")}
        if opposites & {spelt(neighbour).casefold() for neighbour in beside}:
            return None
    return split


def _says_nothing(word: str) -> bool:
    return word in BESIDE or word in WORDS or word.isdecimal() or len(word) == 1


def is_train_alone(name: str) -> bool:
    """Whether `name` may as well be the vehicle: "train", with a number before it at most."""
    words = words_of(name)
    return words[-1:] == ["train"] and all(word.isdecimal() for word in words[:-1])
