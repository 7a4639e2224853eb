"""Images without labels that join train: where they come from, what is left out, what is kept of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.errors import KdcError
from compressor.tasks.image_classification import open_data
from tests.kit import Hearing

MakeFolder = Callable[..., Path]


def test_they_stand_at_the_end_of_train_and_the_data_stays_what_it_is(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 10, "b": 10, "c": 10})
    more = make_folder({"x/deep/er": 4, "y": 2}, "more")
    shutil.copy(root / "a" / "000.png", more / "beside.png")
    Image.new("RGB", (5, 4), (7, 8, 9)).save(more / "own.png")
    plain, heard = open_data(f"folder:{root}"), Hearing()
    data = open_data(f"folder:{root}", unlabelled=f"folder:{more}", progress=heard)
    # make_folder numbers its images anew: those of x are those of a, those of y are those of b
    assert data.train.ids == (*plain.train.ids, "unlabelled/own.png")
    np.testing.assert_array_equal(data.train.labels, [*plain.train.labels, -1])
    assert np.asarray(data.train.read(len(plain.train))).tolist() == [[[7, 8, 9]] * 5] * 4
    assert data.train.read(3) == plain.train.read(3)
    for split in ("validation", "test"):
        assert getattr(data, split).ids == getattr(plain, split).ids
    assert (data.info.fingerprint, data.info.counts) == (plain.info.fingerprint, plain.info.counts)
    assert plain.info.unlabelled is None
    info = data.info.unlabelled
    assert info is not None
    assert (info.source, info.count, info.left_out_copies, info.skipped) == (f"folder:{more}", 1, 7, ())
    assert data.info.notes[len(plain.info.notes)] == (
        "unlabelled: 1 images join train; every loss but those of labels learns from them"
    )
    assert tuple(heard.notes) == data.info.notes
    assert str(more) not in "".join(data.info.notes), "notes travel in bundles"


def test_copies_are_told_by_split(make_folder: MakeFolder) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 1, "test/a": 2, "test/b": 2})
    more = make_folder({}, "more")
    more.mkdir()
    for number, name in enumerate(("train/a/000", "val/a/001", "test/a/000", "test/b/001")):
        shutil.copy(root / f"{name}.png", more / f"{number}.png")
    with pytest.raises(KdcError, match=r"none of its 4 images is new: the data holds an exact copy of each"):
        open_data(f"folder:{root}", unlabelled=f"folder:{more}")
    Image.new("L", (3, 3)).save(more / "own.png")
    data = open_data(f"folder:{root}", unlabelled=f"folder:{more}")
    assert data.info.notes[-1] == (
        "unlabelled: left out 4 exact copies of images in the data (1 of train, 1 of validation, 2 of test)"
    )
    assert data.train.ids[-1] == "unlabelled/own.png"


def test_files_are_compared_with_pixels_as_pixels(tmp_path: Path) -> None:
    """The digits come as pixels; one of them in a PNG is still a copy."""
    plain = open_data("digits")
    plain.test.read(0).save(tmp_path / "copy.png")
    plain.train.read(5).convert("L").save(tmp_path / "grey.png")
    inverted = 255 - np.asarray(plain.test.read(0))
    Image.fromarray(inverted).save(tmp_path / "inverted.png")
    data = open_data("digits", unlabelled=f"folder:{tmp_path}")
    assert data.train.ids[len(plain.train) :] == ("unlabelled/inverted.png",)
    assert data.info.notes[-1].endswith("2 exact copies of images in the data (1 of train, 1 of test)")


def test_copies_in_another_format_are_left_out(make_folder: MakeFolder) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 1, "test/a": 2, "test/b": 2})
    more = make_folder({}, "more")
    more.mkdir()
    for name, suffix in (("train/a/000", "bmp"), ("val/a/001", "tif"), ("test/a/000", "webp"), ("test/b/001", "ppm")):
        Image.open(root / f"{name}.png").save(more / f"{name.replace('/', '-')}.{suffix}", lossless=True)
    Image.new("L", (3, 3)).save(more / "own.png")
    data = open_data(f"folder:{root}", unlabelled=f"folder:{more}")
    assert data.info.notes[-1] == (
        "unlabelled: left out 4 exact copies of images in the data (1 of train, 1 of validation, 2 of test)"
    )
    assert data.train.ids[6:] == ("unlabelled/own.png",)


def test_other_sources_give_their_train_part(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"0": 5, "1": 5})
    data = open_data(f"folder:{root}", unlabelled="digits")
    assert data.info.unlabelled is not None
    assert data.info.unlabelled.count == 1797
    assert data.train.ids[-1] == "unlabelled/train/1796"
    assert set(data.train.labels[-1797:]) == {-1}
    more = make_folder({"1": 1, "0": 1}, "table")
    (more / "new.png").write_bytes((more / "1" / "000.png").read_bytes())
    Image.new("L", (3, 3)).save(more / "1" / "000.png")
    (more / "train.csv").write_text("image,label\n1/000.png,cat\n")
    (more / "test.csv").write_text("image,label\n0/000.png,cat\n")
    data = open_data(f"folder:{root}", unlabelled=f"csv:{more}")
    assert data.train.ids[-1] == "unlabelled/1/000.png"
    assert data.info.unlabelled is not None
    assert data.info.unlabelled.count == 1


def test_their_fingerprint_is_of_what_they_show(make_folder: MakeFolder, tmp_path: Path) -> None:
    root, more = make_folder({"a": 3, "b": 3}), tmp_path / "more"
    more.mkdir()
    Image.new("L", (3, 3)).save(more / "one.png")

    def fingerprint(folder: Path) -> str:
        info = open_data(f"folder:{root}", unlabelled=f"folder:{folder}").info.unlabelled
        assert info is not None
        return info.fingerprint

    first = fingerprint(more)
    shutil.copytree(more, tmp_path / "moved")
    assert fingerprint(tmp_path / "moved") == first
    Image.new("L", (3, 3), 1).save(more / "one.png")
    changed = fingerprint(more)
    (more / "one.png").rename(more / "two.png")
    assert fingerprint(more) == changed != first


def test_unreadable_ones_are_an_error_or_left_out(make_folder: MakeFolder, tmp_path: Path) -> None:
    root, more = make_folder({"a": 3, "b": 3}), tmp_path / "more"
    more.mkdir()
    (more / "bad.png").write_bytes(b"no image")
    with pytest.raises(KdcError, match=r"bad\.png cannot be decoded") as raised:
        open_data(f"folder:{root}", unlabelled=f"folder:{more}")
    assert raised.value.hint == "--skip-bad leaves them out"
    with pytest.raises(KdcError, match="none of its 1 images can be read"):
        open_data(f"folder:{root}", unlabelled=f"folder:{more}", skip_bad=True)
    Image.new("L", (3, 3)).save(more / "good.png")
    heard = Hearing()
    info = open_data(f"folder:{root}", unlabelled=f"folder:{more}", skip_bad=True, progress=heard).info
    assert info.skipped == ()
    assert info.unlabelled is not None
    assert (info.unlabelled.count, info.unlabelled.skipped) == (1, ("unlabelled/bad.png",))
    assert len(heard.warnings) == 1
    assert info.notes[-1] == "unlabelled: left out 1 images that cannot be read, e.g. unlabelled/bad.png"


def test_ids_never_collide_with_those_of_the_data(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"train/a": 3, "train/unlabelled": 3, "test/a": 1})
    root.joinpath("train").rename(tmp_path / "flat")
    (tmp_path / "flat" / "classes.txt").write_text("a\nunlabelled\n")  # which sounds like a split
    (tmp_path / "more").mkdir()
    Image.new("L", (3, 3)).save(tmp_path / "more" / "000.png")
    data = open_data(f"folder:{tmp_path / 'flat'}", unlabelled=f"folder:{tmp_path / 'more'}")
    assert data.train.ids[-1] == "unlabelled/unlabelled/000.png"


def test_a_image_that_stands_twice_is_an_error(make_folder: MakeFolder, tmp_path: Path) -> None:
    root, more = make_folder({"a": 3, "b": 3}), tmp_path / "more"
    more.mkdir()
    Image.new("L", (3, 3)).save(more / "one.png")
    (more / "train.csv").write_text("image,label\none.png,x\n./one.png,y\n")
    with pytest.raises(KdcError, match=r"train\.csv line 3: the image one\.png stands twice, first in .*line 2"):
        open_data(f"folder:{root}", unlabelled=f"csv:{more}")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("foldr:x", "--unlabelled: data 'foldr:x' is not understood; did you mean folder?"),
        ("folder:", "--unlabelled: folder: names no path"),
        ("folder:/no/such", "--unlabelled: /no/such does not exist"),
        ("folder", "it is spelt folder:PATH"),
    ],
)
def test_wrong_references_name_the_option(make_folder: MakeFolder, reference: str, message: str) -> None:
    with pytest.raises(KdcError) as raised:
        open_data(f"folder:{make_folder({'a': 3, 'b': 3})}", unlabelled=reference)
    assert message in raised.value.message


def test_a_folder_without_images_and_one_with_held_out_splits(make_folder: MakeFolder, tmp_path: Path) -> None:
    root, more = make_folder({"a": 3, "b": 3}), tmp_path / "more"
    (more / "Test").mkdir(parents=True)
    with pytest.raises(KdcError, match="more holds no images"):
        open_data(f"folder:{root}", unlabelled=f"folder:{more}")
    Image.new("L", (3, 3)).save(more / "Test" / "one.png")
    (more / "notes.txt").write_text("")
    notes = open_data(f"folder:{root}", unlabelled=f"folder:{more}").info.notes
    assert "unlabelled: the images in Test are taken too" in notes
    assert any(note.startswith("unlabelled: ignored the file ") and "no image by its suffix" in note for note in notes)
