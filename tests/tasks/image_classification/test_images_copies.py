"""What an image shows is what it is: the same split from every source, and copies told in whatever file they lie."""

import csv
import hashlib
import io
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compressor.data.samples import Dataset
from compressor.tasks.image_classification import open_data
from compressor.tasks.image_classification.decoding import PIXELS_PER_STRIP, digest

MakeFolder = Callable[..., Path]
MakeImage = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


def numbered(data: Dataset) -> list[tuple[int, Image.Image, str]]:
    """Every digit as (its number in scikit-learn's order, image, label)."""
    splits = (data.train, data.validation, data.test)
    every = [
        (int(name.removeprefix("train/")), split.read(row), data.info.class_names[split.labels[row]])
        for split in splits
        for row, name in enumerate(split.ids)
    ]
    return sorted(every, key=lambda one: one[0])


def as_folder(digits: Dataset, place: Path) -> str:
    for number, image, label in numbered(digits):
        (place / label).mkdir(parents=True, exist_ok=True)
        image.save(place / label / f"{(number * 7919) % 10007:05}.png")
    return f"folder:{place}"


def as_csv(digits: Dataset, place: Path) -> str:
    place.mkdir()
    with (place / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for number, image, label in reversed(numbered(digits)):
            image.save(place / f"{number}.bmp")
            writer.writerow([f"{number}.bmp", label])
    return f"csv:{place / 'list.csv'}"


def as_parquet(digits: Dataset, place: Path) -> str:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    place.mkdir()

    def encoded(image: Image.Image) -> bytes:
        file = io.BytesIO()
        image.convert("L").save(file, "TIFF")
        return file.getvalue()

    rows = numbered(digits)
    columns = {"image": [encoded(image) for _, image, _ in rows], "label": [label for _, _, label in rows]}
    parquet.write_table(pyarrow.table(columns), place / "train.parquet")
    return f"parquet:{place / 'train.parquet'}"


def as_idx(digits: Dataset, place: Path) -> str:
    place.mkdir()
    rows = numbered(digits)
    pixels = np.stack([np.asarray(image.convert("L")) for _, image, _ in rows])
    labels = np.array([int(label) for _, _, label in rows], np.uint8)
    for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (place / f"train-{name}-ubyte").write_bytes(head + array.tobytes())
    return f"idx:{place}"


def as_hub(digits: Dataset, place: Path) -> str:
    pytest.importorskip("datasets")
    return "hf:" + as_folder(digits, place / "train").removeprefix("folder:").removesuffix("/train")


@pytest.mark.parametrize("arrive", [as_folder, as_csv, as_parquet, as_idx, as_hub])
def test_the_digits_are_split_alike_however_they_arrive(
    digits: Dataset, tmp_path: Path, arrive: Callable[[Dataset, Path], str]
) -> None:
    data = open_data(arrive(digits, tmp_path / "digits"))
    for name in ("train", "validation", "test"):
        here, there = getattr(digits, name), getattr(data, name)
        order, other = np.argsort(here.contents, kind="stable"), np.argsort(there.contents, kind="stable")
        np.testing.assert_array_equal(here.contents[order], there.contents[other])
        np.testing.assert_array_equal(here.labels[order], there.labels[other])
        for row in range(0, len(here), 97):
            one, same = here.read(int(order[row])), there.read(int(other[row]))
            np.testing.assert_array_equal(np.asarray(one), np.asarray(same))
    assert data.info.fingerprint == digits.info.fingerprint


def test_the_digest_is_of_size_and_pixels_by_hand() -> None:
    """In one strip or in several: the same bytes."""
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (3, 5), (5, 3), (2, PIXELS_PER_STRIP + 1), (PIXELS_PER_STRIP + 7, 2), (700, 900)):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        expected = hashlib.sha256(f"({width}, {height})".encode() + pixels.tobytes()).digest()
        assert digest(Image.fromarray(pixels)) == expected


def test_a_turned_image_and_its_upright_copy_are_one(make_folder: MakeFolder, tmp_path: Path) -> None:
    """What counts is what is learned from: an image after its EXIF orientation."""
    root = make_folder({"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    upright = Image.open(root / "train/a/001.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(root / "test/a/000.png", exif=exif)
    notes = open_data(f"folder:{root}").info.notes
    assert "1 images of test have an exact copy in train, e.g. test/a/000.png (it is train/a/001.png)" in notes


def deep(values: np.ndarray, path: Path, **how: Any) -> None:
    Image.fromarray(values.astype(np.uint16)).save(path, **how)


def test_deep_images_are_split_alike_whatever_range_is_stated(tmp_path: Path) -> None:
    """With a range and without, a teacher's training images must not become the student's validation. In three levels
    of grey, most of these images would be one."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 900), ("light", 1300)):
        (tmp_path / "here" / label).mkdir(parents=True)
        for number in range(30):
            deep(level + rng.integers(0, 40, (2, 2)), tmp_path / "here" / label / f"{number:03}.png")
    plain = open_data(f"folder:{tmp_path / 'here'}")
    ranged = open_data(f"folder:{tmp_path / 'here'}", pixel_range=(0, 4095))
    assert plain.info.fingerprint == ranged.info.fingerprint
    assert plain.test.ids == ranged.test.ids
    assert np.asarray(plain.test.read(0)).max() < 7 < np.asarray(ranged.test.read(0)).max()
    whole = np.concatenate([plain.train.contents, plain.validation.contents, plain.test.contents])
    assert len(np.unique(whole)) == 60
    for folder in (tmp_path / "here").iterdir():
        for file in folder.iterdir():
            place = tmp_path / "there" / folder.name / f"{file.stem}.tif"
            place.parent.mkdir(parents=True, exist_ok=True)
            turned = Image.Exif()
            turned[0x0112] = 3
            values = np.asarray(Image.open(file))[::-1, ::-1]
            deep(values, place, exif=turned)
    elsewhere = open_data(f"folder:{tmp_path / 'there'}", pixel_range=(0, 4095))
    assert elsewhere.info.fingerprint == plain.info.fingerprint, "turned, and said to be"


@pytest.mark.parametrize("pixel_range", [None, (0, 65535), (0, 300)])
def test_what_8_bits_hold_is_the_same_in_16(tmp_path: Path, pixel_range: tuple[float, float] | None) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count):
                grey = rng.integers(0, 256, (4, 5), np.uint8)
                Image.fromarray(grey).save(tmp_path / split / label / f"{number}.png")
    grey = np.asarray(Image.open(tmp_path / "train" / "a" / "1.png")).astype(np.uint16)
    deep(grey * 257, tmp_path / "test" / "a" / "0.png")
    notes = open_data(f"folder:{tmp_path}", pixel_range=pixel_range).info.notes
    assert "1 images of test have an exact copy in train, e.g. test/a/0.png (it is train/a/1.png)" in notes


def test_white_that_is_zero_shows_its_negative(tmp_path: Path) -> None:
    from compressor.tasks.image_classification.preprocessing import read

    ramp = np.arange(0, 65000, 500, dtype=np.uint16)[None].repeat(3, 0)
    found = []
    for name, values, photometric in (("black.tif", ramp, 1), ("white.tif", 65535 - ramp, 0)):
        deep(values, tmp_path / name, tiffinfo={262: photometric})
        for pixel_range in (None, (0.0, 4095.0)):
            seen = read((tmp_path / name).read_bytes(), name, pixel_range)[1]
            assert seen.shown is not None
            found.append(digest(seen.shown))
    assert len(set(found)) == 1


def test_reencoded_copies_of_held_out_images_are_counted(make_folder: MakeFolder) -> None:
    root = make_folder({"train/a": 8, "train/b": 8, "val/a": 2, "val/b": 2, "test/a": 4, "test/b": 4})
    for name in ("test/a/000", "test/a/001", "test/b/003"):
        for place in (root / "train", root / "val"):
            Image.open(root / f"{name}.png").save(place / name[5] / f"copy-{name[-1]}.bmp")
    shutil.move(root / "train/b/copy-3.bmp", root / "train/a/copy-of-b.bmp")
    notes = open_data(f"folder:{root}").info.notes
    assert notes[-3:] == (
        "3 images of validation have an exact copy in train, 1 of them under another label, e.g. val/a/copy-0.bmp "
        "(it is train/a/copy-0.bmp)",
        "3 images of test have an exact copy in train, 1 of them under another label, e.g. test/a/000.png (it is "
        "train/a/copy-0.bmp)",
        "3 images of test have an exact copy in validation, e.g. test/a/000.png (it is val/a/copy-0.bmp)",
    )


def test_images_under_several_labels_are_counted(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 20, "dog": 20})
    for number in range(7):
        Image.open(root / f"cat/{number:03}.png").save(root / f"dog/as-cat-{number}.bmp")
    data = open_data(f"folder:{root}")
    told = [note for note in data.info.notes if "several labels" in note]
    counted = [int(note.split()[0]) for note in told]
    assert sum(counted) == 7, told
    for note in told:
        split = note.split()[3]
        first, label, other, other_label = note.partition("e.g. ")[2].replace(" and ", " as ").split(" as ")
        assert (label, other_label) == ("cat", "dog")
        assert {first, other} <= set(getattr(data, split).ids)
        assert other == f"dog/as-cat-{int(first[-7:-4])}.bmp"
    one_of_each = {name: set(getattr(data, name).contents) for name in ("train", "validation", "test")}
    assert sum(map(len, one_of_each.values())) == 40
    assert len(set.union(*one_of_each.values())) == 40, "no image stands in two splits"


def test_ordinary_data_gets_no_note_of_copies(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 20, "dog": 20})
    shutil.copy(root / "cat/000.png", root / "cat/again.png")
    notes: Any = open_data(f"folder:{root}").info.notes
    assert not [note for note in notes if "copy" in note or "several" in note]
