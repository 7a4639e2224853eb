"""Splitting off: by what images show, whatever the seed, the order of files, their names and the other classes."""

import hashlib
import random
from collections import Counter

import numpy as np
import pytest

from compressor.data.splits import split_off
from compressor.errors import KdcError


def shown(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def split_files(files: dict[str, str], missing: tuple[str, ...] = ("test", "validation")) -> dict[str, set[str]]:
    """`files`: {path: what it shows}; the class is the path's first part."""
    paths = list(files)
    rows_of, _ = split_off([shown(files[path]) for path in paths], [path.split("/")[0] for path in paths], missing)
    return {name: {paths[row] for row in rows} for name, rows in rows_of.items()}


def all_different(paths: list[str]) -> dict[str, str]:
    return {path: path for path in paths}


def shares(splits: dict[str, set[str]], label: str) -> dict[str, int]:
    return {name: sum(path.startswith(f"{label}/") for path in paths) for name, paths in splits.items()}


CATS = [f"cat/{i}.jpg" for i in range(40)]
DOGS = [f"dog/{i}.jpg" for i in range(25)]


def test_shares_by_hand() -> None:
    splits = split_files(all_different([*CATS, *DOGS]))
    # test: 8 of 40 cats, 5 of 25 dogs; validation: 10 % of the remaining 32 and 20
    assert {name: len(ids) for name, ids in splits.items()} == {"test": 13, "validation": 5, "train": 47}
    assert sum(name.startswith("dog") for name in splits["test"]) == 5
    assert set.union(*splits.values()) == {*CATS, *DOGS}


def test_the_order_of_files_does_not_matter() -> None:
    shuffled = [*CATS, *DOGS]
    random.Random(3).shuffle(shuffled)
    assert split_files(all_different(shuffled)) == split_files(all_different([*CATS, *DOGS]))


def test_names_of_files_do_not_matter() -> None:
    """What an image shows goes to the same split under any name."""
    renamed = {f"cat/elsewhere/{number:05}.png": path for number, path in enumerate(CATS)}
    here, there = split_files(all_different(CATS)), split_files(renamed)
    assert {name: {renamed[path] for path in paths} for name, paths in there.items()} == here


def test_global_seeds_do_not_matter() -> None:
    before = split_files(all_different(CATS))
    random.seed(99)
    np.random.default_rng(99).random()
    assert split_files(all_different(CATS)) == before


def test_other_classes_do_not_matter() -> None:
    alone = split_files(all_different(CATS))
    together = split_files(all_different([*DOGS, *CATS]))
    assert {name: {i for i in ids if i.startswith("cat")} for name, ids in together.items()} == alone


def test_the_test_split_does_not_depend_on_a_given_validation_split() -> None:
    assert split_files(all_different(CATS), ("test",))["test"] == split_files(all_different(CATS))["test"]


def test_the_split_is_pinned() -> None:
    """A run must find its split again: this may never change. By hand, where the text stands for the image: the first
    two lines of `for i in $(seq 0 9); do printf cat/$i.jpg | sha256sum | sed "s/-/$i/"; done | sort`."""
    assert sorted(split_files(all_different(CATS[:10]))["test"]) == ["cat/3.jpg", "cat/8.jpg"]


@pytest.mark.parametrize("count", range(3, 12))
def test_every_split_gets_at_least_one_of_a_class(count: int) -> None:
    assert all(ids for ids in split_files(all_different(CATS[:count])).values())


def test_too_few() -> None:
    with pytest.raises(KdcError, match=r"class cat has 2 images in train; .* takes at least 3 of each class"):
        split_files(all_different([*CATS[:2], *DOGS]))


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_copies_go_into_one_split_and_the_shares_stay(copies: int) -> None:
    files = {f"cat/{i}-{copy}.png": f"cat {i}" for i in range(100) for copy in range(copies)}
    splits = split_files(files)
    for one in ("train", "validation", "test"):
        assert not {files[path] for path in splits[one]} & {
            files[path] for name, paths in splits.items() if name != one for path in paths
        }
    found = shares(splits, "cat")
    # by hand: 20 % of all, and 10 % of what is left; whole images with their copies, so a few samples less
    assert 20 * copies - copies < found["test"] <= 20 * copies
    assert 8 * copies - copies <= found["validation"] <= 8 * copies


def test_a_image_that_is_there_a_hundred_times_fills_no_split() -> None:
    for salt in range(20):  # wherever it comes in the order
        files = {f"cat/{i}.png": f"{salt} {i}" for i in range(100)}
        files |= {f"cat/copy-{i}.png": f"{salt} 0" for i in range(99)}
        found = shares(split_files(files), "cat")
        assert (found["test"], found["validation"]) == (40, 16), "20 % of 199 and 10 % of 159, in images of one each"


def test_copies_under_another_label_go_into_the_same_split() -> None:
    """A third of the dogs are cats' images too."""
    files = all_different([f"cat/{i}" for i in range(300)]) | {f"dog/{i}": f"dog/{i}" for i in range(200)}
    files |= {f"dog/as-cat-{i}": f"cat/{i}" for i in range(100)}
    splits = split_files(files)
    of = {path: name for name, paths in splits.items() for path in paths}
    assert all(of[f"dog/as-cat-{i}"] == of[f"cat/{i}"] for i in range(100))
    found = shares(splits, "cat")
    assert (found["test"], found["validation"]) == (60, 24)
    found = shares(splits, "dog")
    assert 0.15 < found["test"] / 300 < 0.25
    assert 0.04 < found["validation"] / 300 < 0.13
    without = split_files({path: what for path, what in files.items() if path.startswith("cat/")})
    assert shares(without, "cat") == shares(splits, "cat")
    assert without["test"] == {path for path in splits["test"] if path.startswith("cat/")}


@pytest.mark.parametrize("sizes", [(50, 1, 1), (1, 50, 1), (5, 5, 5), (2, 2, 2), (1, 2, 40), (9, 9, 1)])
def test_three_different_images_are_enough_however_many_copies(sizes: tuple[int, ...]) -> None:
    files = {f"cat/{i}-{copy}": f"cat {i}" for i, size in enumerate(sizes) for copy in range(size)}
    splits = split_files(files)
    assert Counter(len({files[path] for path in paths}) for paths in splits.values()) == {1: 3}
    assert len(splits["train"]) == max(sizes), "the split to learn from has the largest part"


def test_a_class_that_is_one_image_over_and_over_is_said() -> None:
    files = {f"cat/{i}": "the same" for i in range(12)} | all_different(DOGS)
    with pytest.raises(KdcError) as raised:
        split_files(files)
    assert raised.value.message == (
        "class cat has 12 images in train, all copies of one; splitting test and validation off takes at least 3 "
        "different ones of each class"
    )
    files["cat/other"] = "other"
    with pytest.raises(KdcError, match=r"class cat has 13 images in train, only 2 different ones; "):
        split_files(files)


def test_a_class_that_only_has_images_of_another_is_split_with_it() -> None:
    files = all_different(CATS) | {f"dog/{i}": f"cat/{i}.jpg" for i in range(40)}
    splits = split_files(files)
    assert shares(splits, "cat") == shares(splits, "dog") == {"train": 29, "validation": 3, "test": 8}
