"""folder:PATH."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.errors import KdcError
from compressor.tasks.image_classification import open_data

MakeFolder = Callable[..., Path]


def test_class_folders_give_names_labels_and_relative_ids(make_folder: MakeFolder) -> None:
    root = make_folder({"dog": 10, "cat": 20})
    data = open_data(f"folder:{root}")
    assert data.info.class_names == ("cat", "dog")
    assert data.info.source == f"folder:{root}"
    # by hand: test 20 % of 20 and 10; validation 10 % of the 16 and 8 that remain (1.6 -> 2, 0.8 -> 1)
    assert data.info.counts == {"train": 21, "validation": 3, "test": 6}
    every = [*data.train.ids, *data.validation.ids, *data.test.ids]
    assert sorted(every) == [f"cat/{i:03}.png" for i in range(20)] + [f"dog/{i:03}.png" for i in range(10)]
    for split in (data.train, data.validation, data.test):
        assert [data.info.class_names[label] for label in split.labels] == [name.split("/")[0] for name in split.ids]
    assert data.info.notes == (
        "test: 20 % of train split off, stratified by class (6 of 30)",
        "validation: 10 % of train split off, stratified by class (3 of 24)",
    )


def test_given_splits_stay_as_they_are(make_folder: MakeFolder) -> None:
    root = make_folder({"train/a": 3, "train/b": 4, "valid/a": 1, "valid/b": 2, "test/a": 2, "test/b": 1})
    data = open_data(f"folder:{root}")
    assert data.info.counts == {"train": 7, "validation": 3, "test": 3}
    assert data.validation.ids == ("valid/a/000.png", "valid/b/000.png", "valid/b/001.png")
    assert data.validation.labels.tolist() == [0, 1, 1]
    assert data.info.notes == ()


def test_only_validation_is_split_off_when_test_is_given(make_folder: MakeFolder) -> None:
    data = open_data(f"folder:{make_folder({'train/a': 20, 'train/b': 20, 'test/a': 1, 'test/b': 1})}")
    assert data.info.counts == {"train": 36, "validation": 4, "test": 2}
    assert data.info.notes == ("validation: 10 % of train split off, stratified by class (4 of 40)",)


def test_classes_sort_as_in_torchvision(make_folder: MakeFolder) -> None:
    assert open_data(f"folder:{make_folder({'2': 3, '10': 3, '1': 3})}").info.class_names == ("1", "10", "2")


def test_a_class_may_be_called_train(make_folder: MakeFolder) -> None:
    assert open_data(f"folder:{make_folder({'train': 3, 'bus': 3})}").info.class_names == ("bus", "train")


def test_nested_folders_are_walked_and_loops_end(make_folder: MakeFolder) -> None:
    root = make_folder({"a/deep/er": 3, "b": 3})
    (root / "a" / "loop").symlink_to(root / "a", target_is_directory=True)
    data = open_data(f"folder:{root}")
    assert "a/deep/er/000.png" in {*data.train.ids, *data.test.ids, *data.validation.ids}
    assert sum(data.info.counts.values()) == 6
    assert "ignored the folder a/loop: reached before through another link" in data.info.notes


def test_linked_class_folders_are_followed(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 3, "b": 3})
    shutil.move(root / "b", tmp_path / "elsewhere")
    (root / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert open_data(f"folder:{root}").info.class_names == ("a", "b")


def test_what_is_no_image_is_told(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 3})
    for name in ("a/notes.txt", "a/model.bin", "readme.md", "a/.hidden.png", "a/Thumbs.db"):
        (root / name).write_text("x")
    (root / ".ipynb_checkpoints").mkdir()
    data = open_data(f"folder:{root}")
    assert sum(data.info.counts.values()) == 6
    assert data.info.notes[0] == (
        "ignored 3 files, e.g. a/model.bin: no image by its suffix, or beside the class folders"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_does_not_block(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 3})
    os.mkfifo(root / "a" / "pipe.png")
    assert "ignored the file a/pipe.png" in open_data(f"folder:{root}").info.notes[0]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "does not exist"),
        ({"a": 3, "b": 0}, "class folder {root}/b holds no images"),
        ({"a": 3, "b": 2}, "class b has 2 images in train; splitting test and validation off takes at least 3"),
        ({"train/a": 2, "train/b": 1, "test/a": 1}, "class b has 1 image in train; splitting validation off takes"),
        ({"a": 3}, "the data has a as its only class"),
        ({"test/a": 3, "val/a": 3}, "holds test, val but no train folder"),
        ({"train/a": 3, "val/a": 3, "valid/a": 3}, "holds val and valid, which both mean validation"),
        ({"train/a": 3, "val/a": 3, "extra/a": 3}, "holds both splits (train, val) and other folders (extra)"),
        (
            {"train/a": 3, "train/b": 3, "test/c": 3},
            "{root}/test/c/000.png: label c is outside the classes, which are those of train: a, b",
        ),
        ({".hidden": 1}, "{root} holds no images; expected one folder a class"),
    ],
)
def test_wrong_folders(make_folder: MakeFolder, counts: dict[str, int], message: str) -> None:
    root = make_folder(counts)
    with pytest.raises(KdcError) as raised:
        open_data(f"folder:{root}")
    assert message.format(root=root) in raised.value.message
    assert raised.value.exit_code == 2


def test_images_without_class_folders(make_folder: MakeFolder) -> None:
    with pytest.raises(KdcError, match=r"holds 3 images and no folders; expected one folder a class"):
        open_data(f"folder:{make_folder({'a': 3}) / 'a'}")


def test_a_file_is_no_folder(make_folder: MakeFolder) -> None:
    with pytest.raises(KdcError, match=r"000\.png is a file; folder: wants a folder"):
        open_data(f"folder:{make_folder({'a': 3}) / 'a' / '000.png'}")


def test_names_that_are_not_utf8(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 3, "b": 3})
    try:
        (root / "a" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(KdcError, match=r"the name '\\udcff\.png' .* is not UTF-8"):
        open_data(f"folder:{root}")


def test_bad_images_are_named_and_can_be_skipped(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 6, "b": 6})
    whole = (root / "a" / "001.png").read_bytes()
    (root / "a" / "001.png").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "002.png").write_bytes(b"")
    (root / "b" / "003.png").write_text("<html>not found</html>")
    (root / "b" / "004.png").unlink()
    (root / "b" / "004.png").symlink_to("nowhere.png")
    with pytest.raises(KdcError) as raised:
        open_data(f"folder:{root}")
    assert raised.value.message.startswith(f"{root}/a/001.png cannot be decoded: ")
    assert raised.value.message.endswith("(and 3 more images)")
    assert raised.value.hint == "--skip-bad leaves them out"
    data = open_data(f"folder:{root}", skip_bad=True)
    assert data.info.skipped == ("a/001.png", "b/002.png", "b/003.png", "b/004.png")
    assert sum(data.info.counts.values()) == 8
    assert "left out 4 images that cannot be read, e.g. a/001.png" in data.info.notes
    for name in data.info.skipped:  # leaving them out is as if they had never been there
        (root / name).unlink()
    assert open_data(f"folder:{root}").info.fingerprint == data.info.fingerprint


def test_a_class_whose_images_are_all_bad(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 6, "b": 3})
    for path in (root / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(KdcError, match="train holds no images of b"):
        open_data(f"folder:{root}", skip_bad=True)


def test_images_are_decoded_lazily_and_errors_name_the_path(make_folder: MakeFolder) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "val/a": 1, "test/a": 1})
    data = open_data(f"folder:{root}")
    image = data.train.read(1)
    assert (image.mode, image.size) == ("RGB", (10, 12))
    (root / "train/a/001.png").unlink()
    with pytest.raises(KdcError, match=r"train/a/001\.png cannot be read: No such file"):
        data.train.read(1)
