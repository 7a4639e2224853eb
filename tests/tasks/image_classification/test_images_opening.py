"""open_data: references, digits, classes, fingerprints, remarks."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from sklearn.datasets import load_digits

from compressor.errors import KdcError
from compressor.install import install_line
from compressor.progress import Silent
from compressor.tasks.image_classification import open_data
from compressor.tasks.image_classification.sources.digits import FILE
from compressor.tasks.image_classification.sources.table import SOURCES

MakeFolder = Callable[..., Path]
T = TypeVar("T")


class Heard(Silent):
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        self.lines.append(f"{doing}: {total}")
        yield from items


def test_digits() -> None:
    data = open_data("digits")
    assert data.info.class_names == tuple("0123456789")
    assert sum(data.info.counts.values()) == 1797
    assert len(set(data.train.ids) | set(data.validation.ids) | set(data.test.ids)) == 1797
    first = next(split for split in (data.train, data.validation, data.test) if "train/0" in split.ids)
    pixels = np.asarray(first.read(first.ids.index("train/0")))
    assert pixels.shape == (8, 8, 3)
    # scikit-learn's first digit begins 0 0 5 13 9 1 0 0, of 16; by hand times 255 / 16
    assert pixels[0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert first.labels[first.ids.index("train/0")] == 0


def test_the_digits_are_scikit_learns() -> None:
    theirs = load_digits()
    with np.load(FILE, allow_pickle=False) as ours:
        assert np.array_equal(ours["images"], theirs.images)
        assert np.array_equal(ours["labels"], theirs.target)


def test_the_digits_need_no_scikit_learn() -> None:
    code = "import sys; sys.modules['sklearn'] = None\n"
    code += "from compressor.tasks.image_classification import open_data\nprint(len(open_data('digits').train))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 1000


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("foldr:x", "data 'foldr:x' is not understood; did you mean folder?"),
        ("/some/path", "data '/some/path' is not understood"),
        ("folder", "it is spelt folder:PATH"),
        ("digits:8", "it is spelt digits"),
        ("folder:", "folder: names no path"),
        ("idx:/no/such", "/no/such does not exist"),
        ("csv:/no/such.csv", "/no/such.csv does not exist"),
        ("parquet:/no/such", "/no/such does not exist"),
        ("hf:./no-such", "no-such does not exist"),
    ],
)
def test_wrong_references(reference: str, message: str) -> None:
    with pytest.raises(KdcError) as raised:
        open_data(reference)
    assert message in raised.value.message
    assert raised.value.exit_code == 2


def test_an_unknown_scheme_lists_every_spelling() -> None:
    with pytest.raises(KdcError) as raised:
        open_data("zip:x")
    for source in SOURCES.values():
        assert f"{source.spelling} (e.g. {source.example})" in raised.value.hint


def test_a_missing_optional_package_exits_4(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module, reference in (("datasets", f"hf:{tmp_path}"), ("pyarrow", f"parquet:{tmp_path}")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(KdcError, match=f"data needs {module}") as raised:
            open_data(reference)
        assert raised.value.exit_code == 4
        assert raised.value.hint == install_line(module)


def test_class_names_set_the_order_of_labels(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 3, "c": 3})
    data = open_data(f"folder:{root}", class_names=["c", "a", "b"])
    assert data.info.class_names == ("c", "a", "b")
    assert [data.info.class_names[label] for label in data.test.labels] == [name[0] for name in data.test.ids]


def test_class_names_must_be_the_same_set(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 3, "c": 3})
    with pytest.raises(KdcError, match="only in the data: b, c; missing from the data: d"):
        open_data(f"folder:{root}", class_names=["a", "d"])


def test_the_fingerprint_is_of_the_data_not_of_the_place(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 5, "b": 5})
    original = open_data(f"folder:{root}").info.fingerprint
    shutil.copytree(root, tmp_path / "moved")
    assert open_data(f"folder:{tmp_path / 'moved'}").info.fingerprint == original
    shutil.copy(root / "a" / "000.png", tmp_path / "moved" / "a" / "001.png")
    changed = open_data(f"folder:{tmp_path / 'moved'}").info.fingerprint
    (tmp_path / "moved" / "a" / "001.png").rename(tmp_path / "moved" / "a" / "other.png")
    assert open_data(f"folder:{tmp_path / 'moved'}").info.fingerprint == changed, "a name shows nothing"
    (tmp_path / "moved" / "a" / "other.png").rename(tmp_path / "moved" / "b" / "other.png")
    relabelled = open_data(f"folder:{tmp_path / 'moved'}").info.fingerprint
    reordered = open_data(f"folder:{root}", class_names=["b", "a"]).info.fingerprint
    assert len({original, changed, relabelled, reordered}) == 4


def test_copies_across_splits_are_told(make_folder: MakeFolder) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "val/a": 1, "test/a": 2})
    shutil.copy(root / "train/a/000.png", root / "test/a/001.png")
    assert open_data(f"folder:{root}").info.notes == (
        "validation holds no images of b",
        "test holds no images of b",
        "1 images of test have an exact copy in train, e.g. test/a/001.png (it is train/a/000.png)",
    )


def test_progress_hears_what_happens(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 5, "b": 5})
    (root / "a" / "004.png").write_bytes(b"")
    heard = Heard()
    data = open_data(f"folder:{root}", skip_bad=True, progress=heard)
    assert heard.lines[0] == "checking images: 10"
    assert heard.lines[1].startswith("warning: left out: ")
    assert tuple(heard.lines[2:]) == data.info.notes


def test_neither_torch_nor_an_optional_package_is_imported() -> None:
    code = "import sys, compressor.data; print([m for m in ('torch', 'datasets', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
