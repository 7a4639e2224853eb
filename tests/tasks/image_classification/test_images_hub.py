"""hf:NAME_OR_PATH, offline: save_to_disk folders, imagefolders, and a hub that cannot be reached."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compressor.errors import KdcError
from compressor.tasks.image_classification import open_data

MakeFolder = Callable[..., Path]
MakeBytes = Callable[..., bytes]
MakeImage = Callable[..., Image.Image]


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, offline and with its cache in the test's folder. It may have been imported by an earlier test: so not
    only the environment is set, but also what was read from it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module = pytest.importorskip("datasets")
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(module.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH"):
        monkeypatch.setattr(module.config, name, str(tmp_path / "cache" / name))
    return module


def make(datasets: Any, make_bytes: MakeBytes, count: int = 20, first: int = 0) -> Any:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])})
    values = {
        "image": [{"bytes": make_bytes(first + row), "path": None} for row in range(count)],
        "label": [row % 2 for row in range(count)],
    }
    return datasets.Dataset.from_dict(values, features=features)


def test_a_saved_dict_of_splits(datasets: Any, tmp_path: Path, make_bytes: MakeBytes, make_image: MakeImage) -> None:
    splits = {"train": make(datasets, make_bytes), "valid": make(datasets, make_bytes, 4, 100)}
    splits["unsupervised"] = splits["valid"]
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    data = open_data(f"hf:{tmp_path / 'saved'}")
    assert data.info.class_names == ("zebra", "ant")
    assert data.info.counts == {"train": 16, "validation": 4, "test": 4}
    assert data.validation.ids == ("valid/0", "valid/1", "valid/2", "valid/3")
    assert data.validation.labels.tolist() == [0, 1, 0, 1]
    assert np.array_equal(np.asarray(data.validation.read(2)), np.asarray(make_image(102)))
    assert data.info.notes[:2] == (
        "images from column image, labels from column label",
        "ignored the splits unsupervised",
    )


def test_a_saved_single_split_that_was_shuffled(
    datasets: Any, tmp_path: Path, make_bytes: MakeBytes, make_image: MakeImage
) -> None:
    dataset = make(datasets, make_bytes).select(range(19, -1, -1))
    dataset.save_to_disk(str(tmp_path / "saved"))
    data = open_data(f"hf:{tmp_path / 'saved'}")
    assert sum(data.info.counts.values()) == 20
    row = 19 - int(data.train.ids[0].removeprefix("train/"))
    assert data.train.labels[0] == row % 2
    assert np.array_equal(np.asarray(data.train.read(0)), np.asarray(make_image(row)))


def test_plain_bytes_and_text_labels(datasets: Any, tmp_path: Path, make_bytes: MakeBytes) -> None:
    values = {"img": [make_bytes(row) for row in range(12)], "category": ["b", "a"] * 6}
    datasets.Dataset.from_dict(values).save_to_disk(str(tmp_path / "saved"))
    data = open_data(f"hf:{tmp_path / 'saved'}")
    assert data.info.class_names == ("a", "b")


def test_columns_are_found_by_type(datasets: Any, tmp_path: Path, make_bytes: MakeBytes) -> None:
    dataset = make(datasets, make_bytes).rename_columns({"image": "xray", "label": "finding"})
    dataset.save_to_disk(str(tmp_path / "saved"))
    data = open_data(f"hf:{tmp_path / 'saved'}")
    assert data.info.notes[0] == "images from column xray, labels from column finding"


def test_imagefolder(datasets: Any, make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 6, "train/dog": 6, "test/cat": 2, "test/dog": 2})
    data = open_data(f"hf:{root}")
    assert data.info.class_names == ("cat", "dog")
    assert data.info.counts == {"train": 10, "validation": 2, "test": 4}
    assert data.test.read(0).size == (10, 12)
    direct = open_data(f"folder:{root}")
    assert [np.asarray(data.test.read(row)).tolist() for row in range(4)] == [
        np.asarray(direct.test.read(row)).tolist() for row in range(4)
    ]


def test_a_folder_that_a_tool_left_is_no_class(datasets: Any, make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 6, "dog": 6, "@eaDir": 3})
    with pytest.raises(
        KdcError, match="has a class @eaDir, which is a folder that a system or a tool left there"
    ) as raised:
        open_data(f"hf:{root}")
    assert f"folder:{root}" in raised.value.hint
    assert open_data(f"folder:{root}").info.class_names == ("cat", "dog")


def test_bad_images(datasets: Any, tmp_path: Path, make_bytes: MakeBytes) -> None:
    images = [make_bytes(row) for row in range(12)]
    images[5] = images[5][:40]
    values = {"image": images, "label": ["b", "a"] * 6}
    datasets.Dataset.from_dict(values).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(KdcError, match="train row 5 cannot be decoded"):
        open_data(f"hf:{tmp_path / 'saved'}")
    assert open_data(f"hf:{tmp_path / 'saved'}", skip_bad=True).info.skipped == ("train/5",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": [b"x"] * 2, "label": [0, -1]}, "train row 1: label -1 is negative"),
        ({"image": [b"x"] * 2, "label": ["a", None]}, "train row 1: the label is missing"),
        ({"image": [b"x"] * 2, "fine": [0, 1]}, "has no column for the labels; its columns: image, fine"),
        ({"image": [b"x"] * 2, "label": [0.5, 1.0]}, "train row 0: label 0.5 is neither text nor a whole number"),
    ],
)
def test_wrong_columns(datasets: Any, tmp_path: Path, values: dict[str, Any], message: str) -> None:
    datasets.Dataset.from_dict(values).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(KdcError) as raised:
        open_data(f"hf:{tmp_path / 'saved'}")
    assert message in raised.value.message
    assert raised.value.exit_code == 2


def test_no_train_split(datasets: Any, tmp_path: Path, make_bytes: MakeBytes) -> None:
    datasets.DatasetDict({"test": make(datasets, make_bytes)}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(KdcError, match="holds no split named train; its splits: test"):
        open_data(f"hf:{tmp_path / 'saved'}")


@pytest.mark.parametrize("name", ["owner/no-such-data", "owner/no-such-data@config"])
def test_the_hub_cannot_be_reached(datasets: Any, name: str) -> None:
    with pytest.raises(KdcError, match=f"hf:{name} cannot be loaded, the Hugging Face hub cannot be reached") as raised:
        open_data(f"hf:{name}")
    assert raised.value.exit_code == 2
    assert "HF_HUB_OFFLINE" in raised.value.hint


def test_the_config_is_passed_on(datasets: Any, monkeypatch: pytest.MonkeyPatch, make_bytes: MakeBytes) -> None:
    asked = []

    def load_dataset(*arguments: object, **_: object) -> Any:
        asked.append(arguments)
        return datasets.DatasetDict({"train": make(datasets, make_bytes)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    open_data("hf:owner/name@small")
    open_data("hf:name")
    assert asked == [("owner/name", "small"), ("name", None)]


@pytest.mark.parametrize("place", ["", "a/b/c", "~/no-such", "/no/such"])
def test_neither_a_folder_nor_a_name(datasets: Any, place: str) -> None:
    with pytest.raises(KdcError, match=r"names no path|is neither a folder that exists nor a name|does not exist"):
        open_data(f"hf:{place}")


def test_an_empty_folder(datasets: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(KdcError, match="cannot be loaded"):
        open_data(f"hf:{tmp_path / 'empty'}")


@pytest.mark.parametrize(("version", "settings"), [("3.6.0", {"trust_remote_code": False}), ("4.0.0", {})])
def test_no_script_of_a_data_set_is_trusted(
    datasets: Any, monkeypatch: pytest.MonkeyPatch, make_bytes: MakeBytes, version: str, settings: dict[str, bool]
) -> None:
    """Version 3 asks, or does what the environment says; from 4 on there are no scripts, and no such argument."""
    asked = []

    def load_dataset(*_: object, **given: object) -> Any:
        asked.append(given)
        return datasets.DatasetDict({"train": make(datasets, make_bytes)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "__version__", version)
    open_data("hf:owner/name")
    assert asked == [settings]


def test_a_script_in_a_folder_does_not_run(datasets: Any, make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"train/cat": 6, "train/dog": 6})
    (root / f"{root.name}.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w').close()\n")
    with pytest.raises(KdcError, match="cannot be loaded"):
        open_data(f"hf:{root}")
    assert not (tmp_path / "it-ran").exists()


MISREAD = {
    "capital": (
        {"Train/a": 4, "Train/b": 4, "Test/a": 3, "Test/b": 3},
        "has the images of Test/[ab] in train",
    ),
    "passed over": ({"bus_interior": 4, "train_interior": 4, "train_railway": 4}, "lacks 4 of its images, e.g. bus_"),
    "masks": ({"benign/images": 4, "benign/masks": 4, "bad/images": 4}, "has as classes images and masks, which sound"),
    "magnifications": ({"benign/40X": 4, "bad/40X": 4, "bad/100X": 4}, "makes one class of bad/40X, benign/40X, 40X"),
    "no splits": ({"ISIC_Test_Input": 4, "ISIC_Training_Input": 4}, "has as classes .*, which sound like splits"),
}


@pytest.mark.parametrize("name", list(MISREAD))
def test_folders_that_load_dataset_reads_otherwise_than_people(
    datasets: Any, make_folder: MakeFolder, name: str
) -> None:
    counts, message = MISREAD[name]
    root = make_folder(counts)
    with pytest.raises(KdcError, match=f"as load_dataset reads it, {message}") as caught:
        open_data(f"hf:{root}")
    assert caught.value.hint.startswith(f"folder:{root}")


@pytest.mark.parametrize(
    "counts",
    [
        {"cat": 5, "dog": 5},
        {"train/cat": 5, "train/dog": 5, "test/cat": 2, "test/dog": 2},
        {"wrapper/train/cat": 5, "wrapper/train/dog": 5, "wrapper/val/cat": 2, "wrapper/val/dog": 2},
        {"seg_train/seg_train/cat": 5, "seg_train/seg_train/dog": 5, "seg_test/seg_test/cat": 2},
        {"pets/cat": 5, "pets/dog": 5, "farm/cow": 5},
    ],
    ids=["plain", "splits", "wrapper", "kaggle", "groups"],
)
def test_folders_that_load_dataset_reads_rightly(
    datasets: Any, make_folder: MakeFolder, counts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(counts)
    data = open_data(f"hf:{root}")
    assert {"cat", "dog"} <= {*data.info.class_names}
    assert sum(data.info.counts.values()) == sum(counts.values())
    monkeypatch.chdir(root.parent)
    assert open_data(f"hf:./{root.name}").info.fingerprint == data.info.fingerprint


def test_a_split_that_sounds_like_test_is_not_passed_over(datasets: Any, tmp_path: Path, make_bytes: MakeBytes) -> None:
    splits = {"train": make(datasets, make_bytes), "holdout": make(datasets, make_bytes, 4, 100)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(KdcError, match="has a split holdout, which sounds like test, and none called test"):
        open_data(f"hf:{tmp_path / 'saved'}")
