"""The names of classes and the ids of samples, from every source: one line each, and one spelling a class."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressor.data.labels import class_order
from compressor.data.specialty import specialty_classes
from compressor.data.transfer import classes_without
from compressor.errors import EXIT_USAGE, KdcError
from compressor.schema.recipe import Transfer
from compressor.tasks.image_classification import open_data

MakeFolder = Callable[..., Path]
MakeBytes = Callable[..., bytes]

COMPOSED, APART = "caf\xe9", "cafe\u0301"  # one name in Unicode's forms NFC and NFD
BAD = ["a\nb", "a\rb", "a\tb", "a\x1b[31m", "a\x0b", "\x85a", "a\u2028b", "a\u2029", "a\u202eb", "\ufeffa", "a\x7f"]


def table(folder: Path, labels: list[str], name: str = "labels.csv", start: int = 0) -> Path:
    """A CSV whose images are 000.png … in `folder`/images, every label quoted."""
    lines = [f'images/{start + row:03}.png,"{label}"' for row, label in enumerate(labels)]
    path = folder / name
    path.write_text("\n".join(["path,label", *lines]) + "\n", encoding="utf-8", newline="")
    return path


@pytest.fixture
def images(tmp_path: Path, make_bytes: MakeBytes) -> Path:
    (tmp_path / "images").mkdir()
    for row in range(40):
        (tmp_path / "images" / f"{row:03}.png").write_bytes(make_bytes(row))
    return tmp_path


def refused(reference: str) -> KdcError:
    with pytest.raises(KdcError) as raised:
        open_data(reference)
    assert raised.value.exit_code == EXIT_USAGE
    assert raised.value.message.splitlines() == [raised.value.message], "one line"
    assert raised.value.message.isprintable()
    assert raised.value.hint
    return raised.value


@pytest.mark.parametrize("name", BAD)
def test_a_class_that_is_not_one_line_is_refused_in_csv(images: Path, name: str) -> None:
    error = refused(f"csv:{table(images, [name, 'cat'] * 10)}")
    assert f"labels.csv line {2 + name.count(chr(10)) + name.count(chr(13))}: the class name {name!a} " in error.message


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", ["", "train/"])
def test_a_class_that_is_not_one_line_is_refused_in_folders(make_folder: MakeFolder, name: str, place: str) -> None:
    error = refused(f"folder:{make_folder({f'{place}{name}': 3, f'{place}cat': 3})}")
    assert f"the class name {name!a} holds " in error.message


@pytest.mark.parametrize("name", [*BAD, "half \ud800"])
def test_a_class_that_is_not_one_line_is_refused_in_parquet(tmp_path: Path, make_bytes: MakeBytes, name: str) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    said = {"info": {"features": {"label": {"names": ["cat", name], "_type": "ClassLabel"}}}}
    columns = {"image": [make_bytes(row) for row in range(6)], "label": [0, 1] * 3}
    parquet.write_table(
        pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(said)}), tmp_path / "numbers.parquet"
    )
    assert (
        f"numbers.parquet row 1: the class name {name!a} holds "
        in refused(f"parquet:{tmp_path}/numbers.parquet").message
    )
    if name.isascii():
        parquet.write_table(pa.table(columns | {"label": ["cat", name] * 3}), tmp_path / "texts.parquet")
        assert f"texts.parquet row 1: the class name {name!a} " in refused(f"parquet:{tmp_path}/texts.parquet").message


def test_a_class_that_is_not_one_line_is_refused_in_hugging_face_data(tmp_path: Path, make_bytes: MakeBytes) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog\nwolf"])})
    values = {"image": [{"bytes": make_bytes(row), "path": None} for row in range(6)], "label": [0, 1] * 3}
    datasets.Dataset.from_dict(values, features=features).save_to_disk(str(tmp_path / "saved"))
    assert r"train row 1: the class name 'dog\nwolf' holds a line break" in refused(f"hf:{tmp_path / 'saved'}").message


def idx(folder: Path, names: bytes) -> str:
    pixels, labels = np.arange(30 * 4, dtype=np.uint8).reshape(30, 2, 2), np.arange(30, dtype=np.uint8) % 3
    for what, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / f"train-{what}-ubyte").write_bytes(head + array.tobytes())
    (folder / "classes.txt").write_bytes(names)
    return f"idx:{folder}"


def test_the_lines_of_classes_txt_end_at_line_feeds_alone(tmp_path: Path) -> None:
    """U+2028 within a line made four names of three, and each label the class before its own."""
    error = refused(idx(tmp_path, "shirt\nankle\u2028boot\nbag\n".encode()))
    assert r"the class name 'ankle\u2028boot' holds a line break (U+2028)" in error.message
    assert open_data(idx(tmp_path, b"\xef\xbb\xbfshirt\r\n boot \r\nbag")).info.class_names == ("shirt", "boot", "bag")


def test_a_image_whose_name_is_not_one_line_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 4, "dog": 3})
    (root / "cat" / "000.png").rename(root / "cat" / "a\nb.png")
    assert r"the image's name 'cat/a\nb.png' holds a line break (U+000A)" in refused(f"folder:{root}").message
    (root / "cat" / "a\nb.png").rename(root / "cat" / "notes\n.txt")  # no image, and so no one's affair
    (root / "dog" / "Icon\r").write_text("")
    (root / "cat" / "000.png").write_bytes((root / "cat" / "001.png").read_bytes() + b" ")
    assert sum(open_data(f"folder:{root}").info.counts.values()) == 7


def test_an_unlabelled_image_whose_name_is_not_one_line_is_refused(
    make_folder: MakeFolder, make_bytes: MakeBytes, tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a\u2028b.png").write_bytes(make_bytes(99))
    with pytest.raises(KdcError, match=r"--unlabelled: .* the image's name 'a\\u2028b\.png' holds a line break"):
        open_data(f"folder:{make_folder({'a': 3, 'b': 3})}", unlabelled=f"folder:{tmp_path / 'more'}")


def test_two_forms_of_one_name_are_one_class_and_said(make_folder: MakeFolder) -> None:
    root = make_folder({COMPOSED: 10, APART: 10, "tea": 10})
    if len(list(root.iterdir())) < 3:
        pytest.skip("this file system takes both for one")
    data = open_data(f"folder:{root}")
    assert data.info.class_names == (COMPOSED, "tea")
    assert data.info.counts == {"train": 21, "validation": 3, "test": 6}
    (note,) = [note for note in data.info.notes if "spellings" in note]
    assert r"count as one class: café (" in note
    assert r"'caf\xe9'" in note
    assert r"'cafe\u0301'" in note
    assert str(root) not in note, "notes stand in reports"
    assert {name.split("/")[0] for name in data.train.ids} == {COMPOSED, APART, "tea"}, "as they lie on disk"
    data.train.read(0)


@pytest.mark.parametrize("both", [[COMPOSED, APART], [APART, COMPOSED]])
def test_splits_in_two_forms_have_the_same_classes(make_folder: MakeFolder, both: list[str]) -> None:
    data = open_data(
        f"folder:{make_folder({f'train/{both[0]}': 6, 'train/tea': 6, f'val/{both[1]}': 2, 'val/tea': 2})}"
    )
    assert data.info.class_names == (COMPOSED, "tea")
    assert data.validation.labels.tolist().count(0) == 2
    assert data.info.notes[0].startswith("spellings that count as one class: café (")


def test_one_form_throughout_needs_no_word(make_folder: MakeFolder) -> None:
    data = open_data(f"folder:{make_folder({APART: 6, 'tea': 6})}")
    assert data.info.class_names == (COMPOSED, "tea")
    assert not [note for note in data.info.notes if "spelling" in note]


def test_the_same_data_in_two_forms_has_the_same_classes_in_csv(images: Path) -> None:
    table(images, [COMPOSED, "tea"] * 6, "train.csv")
    table(images, [APART, "tea"] * 2, "val.csv", start=20)
    data = open_data(f"csv:{images}")
    assert (data.info.class_names, data.info.counts["validation"]) == ((COMPOSED, "tea"), 4)


def test_blanks_around_names_do_not_count_in_any_source(images: Path, make_folder: MakeFolder) -> None:
    in_table = open_data(f"csv:{table(images, [' cat', 'dog'] * 6)}")
    in_folders = open_data(f"folder:{make_folder({' cat': 6, 'dog': 6}, 'spaced')}")
    for data in (in_table, in_folders):
        assert data.info.class_names == ("cat", "dog")
        assert "blanks around class names do not count: ' cat'" in data.info.notes
    merged = open_data(f"folder:{make_folder({'cat ': 6, 'cat': 6, 'dog': 6}, 'merged')}")
    assert merged.info.class_names == ("cat", "dog")
    (note,) = [note for note in merged.info.notes if "spellings" in note]
    assert note.startswith("spellings that count as one class: cat ('cat")
    assert "'cat '" in note


def test_names_that_look_alike_stay_apart_and_are_said(make_folder: MakeFolder) -> None:
    names = ("Cat", "cat", "sea_lion", "sea lion", "c\u200bow", "cow")
    data = open_data(f"folder:{make_folder(dict.fromkeys(names, 3))}")
    assert len(data.info.class_names) == 6
    (note,) = [note for note in data.info.notes if "differ only" in note]
    for pair in ("'Cat' and 'cat'", "'sea lion' and 'sea_lion'", r"'cow' and 'c\u200bow'"):
        assert pair in note


@pytest.mark.parametrize(
    "labels", [("0", "0.0"), ("1", "1.0"), ("1", "01"), ("7", "7."), ("2", "+2"), ("3.0", "3.00"), ("4", " 4.0")]
)
def test_one_number_in_two_spellings_is_a_question(images: Path, labels: tuple[str, str]) -> None:
    error = refused(f"csv:{table(images, [*labels, 'x'] * 4)}")
    assert "are the same number: are they one class, or two?" in error.message
    for label in labels:
        assert repr(label.strip()) in error.message
    assert "labels.csv line" in error.message
    assert f"write {min(labels, key=lambda label: (len(label.strip()), label)).strip()} everywhere" in error.hint


def test_one_number_in_two_spellings_is_a_question_between_files_and_in_folders(
    images: Path, make_folder: MakeFolder
) -> None:
    table(images, ["0", "1"] * 6, "train.csv")
    table(images, ["0.0", "1.0"] * 2, "val.csv", start=20)
    message = refused(f"csv:{images}").message
    assert "train.csv line 2" in message
    assert "val.csv line 2" in message
    assert "'1' (" in refused(f"folder:{make_folder({'1': 3, '01': 3, '2': 3})}").message


def test_floats_throughout_are_names_as_they_stand_and_said(images: Path) -> None:
    data = open_data(f"csv:{table(images, ['0.0', '1.0'] * 6)}")
    assert data.info.class_names == ("0.0", "1.0")
    assert "labels are whole numbers written as floats, and the classes are called so: 0.0, 1.0" in data.info.notes


@pytest.mark.parametrize("names", [("1.1", "1.10"), ("0.5", "0.50")])
def test_fractions_may_be_version_numbers(images: Path, names: tuple[str, str]) -> None:
    data = open_data(f"csv:{table(images, [*names] * 6)}")
    assert data.info.class_names == names
    assert f"classes that are the same number, and stay apart: {names[0]} and {names[1]}" in data.info.notes


@pytest.mark.parametrize(
    "names", [("01", "02", "10"), ("0", "1", "10"), ("1a", "01a"), ("1.2.0", "1.2"), ("1/2", "1-2")]
)
def test_other_numbers_are_plain_names(images: Path, names: tuple[str, ...]) -> None:
    data = open_data(f"csv:{table(images, [*names] * 6)}")
    assert set(data.info.class_names) == set(names)
    assert not [note for note in data.info.notes if "number" in note]


@pytest.mark.parametrize("label", ["-1", "-1.0", " -1 "])
def test_a_label_of_minus_one_marks_what_has_none(images: Path, label: str) -> None:
    assert (
        "is negative, which usually marks a sample without a label"
        in refused(f"csv:{table(images, [label, 'cat'] * 6)}").message
    )


@pytest.mark.parametrize("label", ["  ", "<NA>", "NaN ", "\u00a0"])
def test_a_label_of_blanks_is_missing(images: Path, label: str) -> None:
    assert "labels.csv line 2: the label is missing" in refused(f"csv:{table(images, [label, 'cat'] * 6)}").message


def test_labels_of_many_digits_are_ordered_without_converting_them() -> None:
    long = "9" * 5000
    assert class_order(["10", long, "2"]) == ("2", "10", long)


def test_a_text_in_the_label_column_is_too_long_for_a_name(images: Path) -> None:
    message = refused(f"csv:{table(images, ['word ' * 400 + 'x', 'cat'] * 6)}").message
    assert "has 2,001 characters; 1,000 are the most" in message
    assert len(message) < 400


def test_typed_names_are_compared_in_one_form() -> None:
    names = (COMPOSED, "niño", "tea")
    assert specialty_classes([f"tea,{APART}"], names) == (COMPOSED, "tea")
    assert classes_without(Transfer(without=(APART,)), names) == [0]
    with pytest.raises(KdcError, match="names café twice"):
        classes_without(Transfer(without=(APART, COMPOSED)), names)
    with pytest.raises(KdcError, match="names café twice"):
        specialty_classes([APART, COMPOSED, "tea"], (*names, "more"))


def test_a_class_list_that_names_one_twice_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="class bag is named twice"):
        open_data(idx(tmp_path, b"bag\nboot\nbag\n"))
