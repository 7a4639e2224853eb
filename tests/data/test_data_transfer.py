"""The transfer set: which training samples keep their label, and which stand in it at all."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data.samples import Dataset
from compressor.data.transfer import transfer_set
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.schema.base import parse
from compressor.schema.recipe import Recipe, Transfer
from compressor.tasks.image_classification import open_data
from compressor.tasks.mixing import Mix, mixed_labels
from tests.kit import Hearing


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


def cut(data: Dataset, labels_only: bool = False, **how: Any) -> Dataset:
    return transfer_set(data, Transfer(**how), labels_only=labels_only, progress=Silent())


def labelled_ids(data: Dataset) -> set[str]:
    return {name for name, label in zip(data.train.ids, data.train.labels, strict=True) if label >= 0}


def test_by_default_nothing_changes(digits: Dataset) -> None:
    assert cut(digits) is digits
    assert cut(digits, labels_only=True) is digits


def test_a_share_of_each_class_keeps_its_label(digits: Dataset) -> None:
    data = cut(digits, labelled=0.03)
    assert data.train.ids == digits.train.ids
    kept = Counter(data.train.labels[data.train.labels >= 0].tolist())
    whole = Counter(digits.train.labels.tolist())
    # by hand: about 129 a class, of which 3 % are 3.87
    assert kept == {label: round(count * 0.03) for label, count in whole.items()}
    known = data.train.labels >= 0
    np.testing.assert_array_equal(data.train.labels[known], digits.train.labels[known])
    assert set(data.train.labels[~known]) == {-1}
    assert data.info == digits.info.model_copy(update={"notes": data.info.notes})
    assert data.info.notes[-1] == (
        f"transfer.labelled 0.03: {known.sum()} training images keep their label, {(~known).sum():,} lose it"
    )
    assert (data.validation, data.test) == (digits.validation, digits.test)


def test_at_least_one_of_each_class_keeps_it(digits: Dataset) -> None:
    assert sorted(label for label in cut(digits, labelled=1e-6).train.labels if label >= 0) == list(range(10))


def test_the_choice_hangs_on_what_the_images_show_alone(digits: Dataset) -> None:
    """Not on their order, their names or the seed; and a larger share holds the smaller ones."""
    some, more = (labelled_ids(cut(digits, labelled=share)) for share in (0.05, 0.2))
    assert some < more
    backwards = np.arange(len(digits.train))[::-1].copy()
    turned = Dataset(digits.info, digits.train.part(backwards), digits.validation, digits.test)
    assert labelled_ids(cut(turned, labelled=0.05)) == some
    renamed = replace(digits.train, ids=tuple(f"elsewhere/{hash(one)}" for one in digits.train.ids))
    again = cut(replace(digits, train=renamed), labelled=0.05)
    assert [label >= 0 for label in again.train.labels] == [name in some for name in digits.train.ids]


def test_what_lost_its_label_can_be_dropped(digits: Dataset) -> None:
    relabelled, dropped = cut(digits, labelled=0.03), cut(digits, labelled=0.03, drop_unlabelled=True)
    assert set(dropped.train.ids) == labelled_ids(relabelled)
    for number, name in enumerate(dropped.train.ids):
        row = digits.train.ids.index(name)
        assert dropped.train.labels[number] == digits.train.labels[row]
        assert dropped.train.read(number) == digits.train.read(row)
    assert dropped.info.notes[-1].endswith("are left out of train")


def test_classes_are_left_out(digits: Dataset) -> None:
    heard = Hearing()
    how = Transfer(without=("3", "7"))
    data = transfer_set(digits, how, labels_only=False, progress=heard)
    gone = np.isin(digits.train.labels, [3, 7])
    assert data.train.ids == tuple(name for name, out in zip(digits.train.ids, gone, strict=True) if not out)
    assert data.info.class_names == digits.info.class_names
    assert heard.notes == [f"transfer.without: all {gone.sum()} images of 3, 7 are left out of train"]
    assert {3, 7} <= set(data.validation.labels) & set(data.test.labels)
    both = cut(digits, without=("3",), labelled=0.1)
    assert 3 not in both.train.labels
    assert (both.train.labels == -1).sum() > 1000


def test_unknown_and_all_classes_are_refused(digits: Dataset) -> None:
    named = Dataset(
        digits.info.model_copy(update={"class_names": ("zero", "one", "two", "three", *"456789")}),
        digits.train,
        digits.validation,
        digits.test,
    )
    with pytest.raises(KdcError, match=r"transfer\.without: the data has no class thre; did you mean three\?"):
        cut(named, without=("thre",))
    with pytest.raises(KdcError, match=r"transfer\.without names every class"):
        cut(digits, without=tuple("0123456789"))


def test_samples_without_a_label_are_left_out_where_only_labels_teach(digits: Dataset) -> None:
    data = cut(digits, labels_only=True, labelled=0.03)
    assert set(data.train.ids) == labelled_ids(cut(digits, labelled=0.03))
    assert data.train.labels.min() == 0
    assert data.info.notes[-1] == (
        f"{len(digits.train) - len(data.train):,} training images have no label and are left out: "
        "only labels teach here"
    )


def test_unlabelled_images_stay_without_a_label(digits: Dataset) -> None:
    labels = digits.train.labels.copy()
    labels[:50] = -1
    joined = Dataset(digits.info, digits.train.part(np.arange(len(labels)), labels), digits.validation, digits.test)
    data = cut(joined, without=("3",), labelled=0.1, drop_unlabelled=True)
    assert data.train.ids[:50] == digits.train.ids[:50], "drop_unlabelled is about those that lost theirs"
    assert set(data.train.labels[:50]) == {-1}
    assert data.train.labels[50:].min() == 0


@pytest.mark.parametrize(
    ("transfer", "message"),
    [
        ({"labelled": 0}, "transfer.labelled: should be greater than 0, found 0"),
        ({"labelled": 1.5}, "transfer.labelled: should be less than or equal to 1"),
        ({"without": ["3", "3"]}, "transfer: names the same class twice in without"),
        ({"correct_bias": True}, "transfer: correct_bias fits the biases of the classes in without, which names none"),
        ({"labeled": 0.5}, "unknown key transfer.labeled; did you mean transfer.labelled?"),
    ],
)
def test_the_recipes_section_is_strict(transfer: dict[str, Any], message: str) -> None:
    with pytest.raises(KdcError) as raised:
        parse(Recipe, {"losses": [{"name": "kd"}], "transfer": transfer}, "recipe r")
    assert message in raised.value.message


def test_a_mixed_row_has_a_label_only_where_all_its_parts_have_one() -> None:
    """By hand: unmixed, mixed and replaced whole, each with and without the labels that count in it."""
    weight = np.array([1, 1, 0.75, 0.75, 0.75, 0, 0], np.float32)
    own, theirs = torch.tensor([0, -1, 0, 0, -1, -1, 0]), torch.tensor([-1, 1, 1, -1, 1, 1, -1])
    mix = Mix(np.arange(7), weight, None)
    assert mixed_labels(own, theirs, mix, 2).tolist() == [
        [1, 0], [0, 0], [0.75, 0.25], [0, 0], [0, 0], [0, 1], [0, 0]
    ]  # fmt: skip
