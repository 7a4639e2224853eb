"""What a specialist is shown: its own classes and as many others, relabelled."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from compressor.data.samples import Dataset, Split
from compressor.data.specialty import DUSTBIN, specialised, specialty_classes
from compressor.errors import KdcError
from compressor.schema.student import DataInfo

NAMES = ("ant", "bee, wild", "cat", "dog", "eel")
EACH = (5, 7, 20, 30, 40)


def split(name: str, labels: list[int]) -> Split:
    ids = tuple(f"{name}/{number}" for number in range(len(labels)))
    contents = np.arange(len(labels), dtype=np.uint64)
    image = lambda row: Image.new("RGB", (1, 1), (row, labels[row], 0))  # noqa: E731
    return Split(name, ids, np.array(labels, np.int64), image, contents)


@pytest.fixture
def data() -> Dataset:
    labels = [label for label, count in enumerate(EACH) for _ in range(count)]
    parts = [split("train", labels), split("validation", [0, 1, 2, 3, 4, 2]), split("test", [4, 3, 2, 1, 0])]
    counts = {part.name: len(part) for part in parts}
    info = DataInfo(source="here", fingerprint="f", class_names=NAMES, counts=counts)
    return Dataset(info, parts[0], parts[1], parts[2])


def test_half_is_its_own_and_half_a_part_of_the_rest(data: Dataset) -> None:
    made, specialty = specialised(data, ["cat", "ant"], seed=3)
    assert made.info.class_names == ("ant", "cat", DUSTBIN)
    assert Counter(made.train.labels.tolist()) == {0: 5, 1: 20, 2: 25}
    assert made.info.counts == {"train": 50, "validation": 6, "test": 5}
    assert (specialty.classes, specialty.dustbin) == (("ant", "cat"), DUSTBIN)
    assert (specialty.share, specialty.natural_share) == (0.5, 77 / 102)
    assert specialty.correction == pytest.approx(np.log(77 / 25))
    before = dict(zip(data.train.ids, data.train.labels.tolist(), strict=True))
    names = {0: 0, 2: 1}
    assert [names.get(before[one], 2) for one in made.train.ids] == made.train.labels.tolist()
    assert len(set(made.train.ids)) == 50
    # In the order that they had, each with its own image.
    rows = [data.train.ids.index(one) for one in made.train.ids]
    assert rows == sorted(rows)
    assert [made.train.read(place).getpixel((0, 0))[0] for place in range(50)] == rows


def test_held_out_samples_all_stay(data: Dataset) -> None:
    made, _ = specialised(data, ["cat", "ant"], seed=3)
    assert made.validation.ids == data.validation.ids
    assert made.validation.labels.tolist() == [0, 2, 1, 2, 2, 1]
    assert made.test.labels.tolist() == [2, 2, 1, 2, 0]


def test_the_draw_depends_on_the_images_and_the_seed_alone(data: Dataset) -> None:
    made, _ = specialised(data, ["ant", "cat"], seed=3)
    same, _ = specialised(data, ["cat,ant"], seed=3)
    other, _ = specialised(data, ["ant", "cat"], seed=4)
    assert (made.train.ids, made.info.fingerprint) == (same.train.ids, same.info.fingerprint)
    assert set(made.train.ids) != set(other.train.ids)
    fingerprints = {made.info.fingerprint, other.info.fingerprint, data.info.fingerprint}
    assert len(fingerprints | {specialised(data, ["ant", "dog"], seed=3)[0].info.fingerprint}) == 4
    backwards = data.train.part(np.arange(len(data.train))[::-1].copy())
    elsewhere = replace(backwards, ids=tuple(f"elsewhere/{number}" for number in range(len(backwards))))
    turned, _ = specialised(replace(data, train=elsewhere), ["ant", "cat"], seed=3)
    assert set(turned.train.contents) == set(made.train.contents)


def test_a_majority_takes_all_others(data: Dataset) -> None:
    """Nothing was oversampled then, and nothing is corrected."""
    made, specialty = specialised(data, ["eel", "dog"], seed=0)
    assert Counter(made.train.labels.tolist()) == {0: 30, 1: 40, 2: 32}
    assert specialty.correction == pytest.approx(0.0)


@pytest.mark.parametrize("typed", [["bee, wild", "cat"], ["cat, ant"], [" cat ,eel"]])
def test_classes_are_named_one_by_one_or_with_commas(typed: list[str]) -> None:
    expected = {"bee, wild": ("bee, wild", "cat"), "cat, ant": ("ant", "cat"), " cat ,eel": ("cat", "eel")}
    assert specialty_classes(typed, NAMES) == expected[typed[0]]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["cat", "dgo"], "--specialty: the data has no class 'dgo'; did you mean dog?"),
        (["cat,cat"], "--specialty names cat twice"),
        (["cat"], "--specialty names 1 of 5 classes"),
        (list(NAMES), "--specialty names 5 of 5 classes"),
    ],
)
def test_what_is_no_specialty_is_refused(typed: list[str], said: str) -> None:
    with pytest.raises(KdcError) as caught:
        specialty_classes(typed, NAMES)
    assert said in caught.value.message
    assert caught.value.hint


def test_a_class_of_the_dustbins_name_is_refused() -> None:
    with pytest.raises(KdcError, match=r"has a class \(others\)"):
        specialty_classes(["a", "b"], ("a", "b", DUSTBIN))
