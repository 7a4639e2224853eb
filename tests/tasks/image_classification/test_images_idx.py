"""idx:PATH."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.tasks.image_classification import open_data

FASHION = Path("/usr/share/datasets/fashion-mnist")


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def gray(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 5, 4), np.uint8)


LABELS = np.arange(30, dtype=np.uint8) % 3


def write(root: Path, train: bytes, labels: bytes = idx_bytes(LABELS), names: str = "-", end: str = "") -> Path:
    root.mkdir(exist_ok=True)
    (root / f"train-images{names}idx3-ubyte{end}").write_bytes(gzip.compress(train) if end else train)
    (root / f"train-labels{names}idx1-ubyte{end}").write_bytes(gzip.compress(labels) if end else labels)
    return root


@pytest.mark.parametrize("names", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_plain_and_gzip_in_both_spellings(tmp_path: Path, names: str, end: str) -> None:
    pixels = gray(30)
    write(tmp_path, idx_bytes(pixels), names=names, end=end)
    data = open_data(f"idx:{tmp_path}")
    assert data.info.class_names == ("0", "1", "2")
    assert data.info.counts == {"train": 21, "validation": 3, "test": 6}
    row = int(data.test.ids[2].removeprefix("train/"))
    assert data.test.labels[2] == row % 3
    assert np.array_equal(np.asarray(data.test.read(2)), np.repeat(pixels[row][..., None], 3, axis=2))


def test_a_given_test_split_colour_and_class_names(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 256, (30, 5, 4, 3), np.uint8)
    write(tmp_path, idx_bytes(colour))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(colour[:6] // 2))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[:6]))
    (tmp_path / "classes.txt").write_text("shirt\nankle boot\nbag\n")
    data = open_data(f"idx:{tmp_path}")
    assert data.info.class_names == ("shirt", "ankle boot", "bag")
    assert data.test.ids == tuple(f"test/{row}" for row in range(6))
    assert np.array_equal(np.asarray(data.test.read(4)), colour[4] // 2)


def test_labels_need_not_begin_at_zero(tmp_path: Path) -> None:
    write(tmp_path, idx_bytes(gray(30)), idx_bytes(np.array([9, 10] * 15, np.uint8)))
    assert open_data(f"idx:{tmp_path}").info.class_names == ("9", "10")


@pytest.mark.parametrize(
    ("train", "labels", "message"),
    [
        (idx_bytes(gray(30))[:-7], None, "is damaged: its header promises 600 bytes, it holds only 593"),
        (idx_bytes(gray(30)) + b"x", None, "is damaged: its header promises 600 bytes, it holds more"),
        (b"\x00\x00", None, "is damaged"),
        (b"PNG!PNG!", None, "is no IDX file of unsigned bytes"),
        (idx_bytes(gray(29)), None, r"holds labels \[30\] for 29 images"),
        (idx_bytes(LABELS), None, r"holds an array \[30\]; expected \[N, h, w\]"),
        (idx_bytes(gray(0)), idx_bytes(LABELS[:0]), r"holds an array \[0, 5, 4\]"),
    ],
)
def test_wrong_files(tmp_path: Path, train: bytes, labels: bytes | None, message: str) -> None:
    write(tmp_path, train, labels or idx_bytes(LABELS))
    with pytest.raises(KdcError, match=message) as raised:
        open_data(f"idx:{tmp_path}")
    assert str(tmp_path) in raised.value.message
    assert raised.value.exit_code == 2


def test_truncated_gzip(tmp_path: Path) -> None:
    write(tmp_path, idx_bytes(gray(30)), end=".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(KdcError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        open_data(f"idx:{tmp_path}")


def test_a_label_outside_the_named_classes(tmp_path: Path) -> None:
    write(tmp_path, idx_bytes(gray(30)))
    (tmp_path / "classes.txt").write_text("shirt\nbag\n")
    with pytest.raises(KdcError, match="row 2: label 2 is outside the classes; 2 are named: shirt, bag"):
        open_data(f"idx:{tmp_path}")


def test_a_named_class_without_images(tmp_path: Path) -> None:
    write(tmp_path, idx_bytes(gray(30)))
    (tmp_path / "classes.txt").write_text("shirt\nbag\nboot\ncoat\n")
    with pytest.raises(KdcError, match="train holds no images of coat"):
        open_data(f"idx:{tmp_path}")


def test_an_empty_line_among_the_classes(tmp_path: Path) -> None:
    write(tmp_path, idx_bytes(gray(30)))
    (tmp_path / "classes.txt").write_text("shirt\n\nboot\n\n")
    with pytest.raises(KdcError, match=r"classes\.txt line 2 is empty; expected the name of class 1"):
        open_data(f"idx:{tmp_path}")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="holds no training images; expected train-images-idx3-ubyte"):
        open_data(f"idx:{tmp_path}")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(gray(30)))
    with pytest.raises(KdcError, match="train-images-idx3-ubyte without its counterpart"):
        open_data(f"idx:{tmp_path}")


@pytest.mark.parametrize(
    "name", ["test-images-idx3-ubyte", "kmnist-test-images.idx3-ubyte.gz", "val-labels-idx1-ubyte"]
)
def test_files_that_sound_like_a_split_are_not_ignored(tmp_path: Path, name: str) -> None:
    """A test split was taken from train instead."""
    write(tmp_path, idx_bytes(gray(30)))
    (tmp_path / name).write_bytes(idx_bytes(gray(30)))
    with pytest.raises(KdcError, match=f"holds {name}, which sounds like (test|validation) and is not read") as raised:
        open_data(f"idx:{tmp_path}")
    assert "t10k-" in raised.value.hint


@pytest.mark.skipif(not FASHION.is_dir(), reason="apt-get install dataset-fashion-mnist")
def test_fashion_mnist() -> None:
    data = open_data(f"idx:{FASHION}")
    assert data.info.counts == {"train": 54000, "validation": 6000, "test": 10000}
    assert data.info.notes[0] == "validation: 10 % of train split off, stratified by class (6,000 of 60,000)"
    assert np.bincount(data.validation.labels).tolist() == [600] * 10
    assert data.test.labels[:5].tolist() == [9, 2, 1, 1, 6]
