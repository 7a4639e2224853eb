"""folder:PATH where the folders in it are no classes: splits under other names, wrappers, what tools leave behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.data.layout import Inside, doubt
from compressor.data.split_words import sounds_like, words_of
from compressor.errors import EXIT_USAGE, KdcError
from compressor.tasks.image_classification import open_data

MakeFolder = Callable[..., Path]
MakeBytes = Callable[..., bytes]


def flat(*names: str) -> dict[str, Inside]:
    """Folders of images."""
    return {name: Inside((), images=True) for name in names}


def holding(names: str, *folders: str) -> dict[str, Inside]:
    """Folders `names` that each hold `folders`, and no images."""
    return {name: Inside(folders, images=False) for name in names.split()}


@pytest.mark.parametrize(
    "name",
    [
        "train", "Training", "VAL", "dev", "test", "train1", "test_set", "TestSet", "training_set", "seg_train",
        "val2017", "train (1)", "test-images", "images.train", "holdout", "hold-out", "hold_out_set", "held out",
        "unlabelled", "Unlabeled2", "eval", "evaluation_data", "trainval", "train_val", "x_test", "final_test",
        "cropped_train_images", "00-train", "train ", "testset", "validation_v2",
    ],
)  # fmt: skip
def test_names_that_sound_like_splits(name: str) -> None:
    assert sounds_like(name)


@pytest.mark.parametrize(
    "name",
    [
        "test tube", "protest", "brain", "terrain", "valley", "valve", "contest", "trainer", "trains", "training shoe",
        "train_station", "bullet train", "crash test dummy", "evaluator", "development", "devon rex", "testudo",
        "invalid", "latest", "1", "unlabelled bottle", "val d'isère", "strain", "set", "data", "dev board",
    ],
)  # fmt: skip
def test_names_that_do_not(name: str) -> None:
    assert sounds_like(name) is None


def test_words_are_taken_apart() -> None:
    assert words_of("ValSet2017 (1)") == ["valset", "2017", "1"]
    assert words_of("Hold-Out_images") == ["holdout", "images"]


LOOKS = {
    "images and what is drawn": (flat("images", "masks"), "images and masks, which sound like images and what is"),
    "pets": (
        {"images": Inside((), True), "annotations": Inside((), True)},
        "images and annotations, which sound like images and what is drawn over them",
    ),
    "voc": (flat("JPEGImages", "SegmentationClass", "SegmentationObject"), "JPEGImages and SegmentationClass, Segm"),
    "unpacked twice": (
        {"tiles": Inside(("tumor", "stroma"), False, doubled=True)} | flat("larger"),
        "tiles, which holds another tiles with the folders tumor, stroma",
    ),
    "two words for splits": (flat("train1", "test1"), "train1, test1, which sound like splits"),
    "train and another": (flat("train", "holdout"), "train, holdout, which sound like splits"),
    "unlabelled": (flat("train", "unlabelled"), "train, unlabelled, which sound like splits"),
    "one among classes": (flat("cat", "dog", "test"), "test, which sounds like a split, beside cat, dog"),
    "train with classes": (
        holding("train", "cat", "dog") | flat("more"),
        "train, which sounds like a split and holds cat, dog, beside more",
    ),
    "nested same names": (
        holding("seg_train", "seg_train") | holding("seg_test", "seg_test"),
        "seg_train, seg_test, which sound like splits",
    ),
    "unknown words beside": (flat("flowers_train", "flowers_test"), "flowers_train, flowers_test, which sound like"),
    "unknown word, classes": (
        holding("flowers_train", "rose", "tulip") | flat("other"),
        "flowers_train, which sounds like a split and holds the folders rose, tulip",
    ),
    "the same folders": (holding("one two", "cat", "dog"), "one, two, which hold the same folders (cat, dog)"),
    "folds": (holding("fold_1 fold_2 fold_3", "a", "b"), "fold_1, fold_2, fold_3, which sound like parts of one set"),
    "nearly the same": (
        holding("one", "a", "b", "c") | holding("two", "b", "c", "d"),
        "one, two, which hold the same folders (b, c)",
    ),
    "digits": (holding("left right", "0", "1", "2"), "left, right, which hold the same folders (0, 1, 2)"),
    "in other case": (
        holding("one", "Cat", "DOG") | holding("two", "cat", "dog"), "one, two, which hold the same folders (cat, dog)"
    ),
    "splits within": (
        holding("images", "train", "val") | holding("masks", "x"),
        "images, which holds train, val: they sound like splits",
    ),
    "splits in each class": (holding("cat dog", "train", "test"), "cat, which holds train, test: they sound like"),
    "images and masks": (holding("covid normal", "images", "masks"), "covid, normal, which hold the same folders"),
    "a copy of the rest": (
        flat("cat", "dog") | holding("backup", "cat", "dog"), "backup, which holds folders named like those beside it"
    ),
    "numbered parts": (flat("images_001", "images_002"), "images_001, images_002, which sound like parts of one set"),
    "parts of a name": (flat("HAM10000_images_part_1", "HAM10000_images_part_2"), "HAM10000_images_part_1, HAM10000"),
    "a wrapper beside": (holding("dataset", "a", "b") | flat("extra"), "dataset, which holds the folders a, b: these"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOOKS)
def test_what_looks_like_no_classes_is_doubted(case: str) -> None:
    folders, said = LOOKS[case]
    assert doubt(folders).startswith(said)


SOUND = {
    "a class called train": flat("train", "bus", "car"),
    "numbered": flat("6_bus", "7_train", "8_truck"),
    "and its kinds": flat("train", "train_station", "test tube", "protest", "brain", "terrain", "valley"),
    "valid and invalid": flat("valid", "invalid"),
    "valid and not valid": flat("valid_ids", "not_valid_ids", "blurred"),
    "test strips": flat("test positive", "test negative"),
    "a video a folder": holding("cat", "video1", "video2") | holding("dog", "video1", "video2"),
    "numbered takes": holding("walk run train", "001", "002", "003"),
    "subjects": holding("wave clap", "subject_01", "subject_02"),
    "one folder in each": holding("cat dog", "images"),  # as in Tiny ImageNet
    "kinds of each": holding("animal", "cat", "dog") | holding("vehicle", "car", "bus", "train"),
    "some divided": flat("abbey", "alley", "bar") | holding("church cathedral", "indoor", "outdoor"),
    "digits": flat(*"0123456789"),
    "one": flat("cat"),
    "numbered classes": flat("class1", "class2", "class3"),
    "images of each year": holding("cat dog", "2019", "2020"),
    "a class within itself": holding("cat", "cat") | holding("dog", "dog"),
}


@pytest.mark.parametrize("case", SOUND)
def test_what_may_well_be_classes_is_not(case: str) -> None:
    assert doubt(SOUND[case]) == ""


@pytest.mark.parametrize(
    "counts",
    [
        {"training_set/cat": 3, "training_set/dog": 3, "test_set/cat": 3, "test_set/dog": 3},
        {"seg_train/seg_train/a": 3, "seg_train/seg_train/b": 3, "seg_test/seg_test/a": 3, "seg_test/seg_test/b": 3},
        {"train/a": 3, "train/b": 3, "holdout/a": 3, "holdout/b": 3},
        {"train": 3, "test1": 3},
        {"train/a": 3, "train/b": 3, "unlabelled": 3},
        {"train_images/a": 3, "train_images/b": 3, "val_images/a": 3, "val_images/b": 3},
        {"fold1/a": 3, "fold1/b": 3, "fold2/a": 3, "fold2/b": 3},
        {"train/fold1/a": 3, "train/fold1/b": 3, "train/fold2/a": 3, "train/fold2/b": 3, "test/a": 1, "test/b": 1},
        {"train/train": 3, "train/test": 3, "val/train": 3},
        {"amazon/images/bag": 3, "amazon/images/mug": 3, "dslr/images/bag": 3, "dslr/images/mug": 3},
        {"images_1/images": 3, "images_2/images": 3},
        {"cells/yes": 3, "cells/no": 3, "yes": 3, "no": 3},
    ],
)
def test_kdc_stops_and_asks(make_folder: MakeFolder, counts: dict[str, int]) -> None:
    """All of these became classes, whose test images were trained on."""
    root = make_folder(counts)
    with pytest.raises(KdcError) as raised:
        open_data(f"folder:{root}")
    assert raised.value.exit_code == EXIT_USAGE
    assert raised.value.message.startswith(f"{root}")
    assert "\n" not in str(raised.value)
    assert "call the splits train, validation and test" in raised.value.hint
    assert f"name them in {root}/classes.txt, one a line" in raised.value.hint


@pytest.mark.parametrize(
    ("counts", "classes"),
    [
        ({"train": 3, "bus": 3, "car": 3}, ("bus", "car", "train")),
        ({"test tube": 3, "protest": 3, "brain": 3, "terrain": 3, "valley": 3},) * 2,
        ({"valid": 3, "invalid": 3}, ("invalid", "valid")),
        ({"cat/video1": 3, "cat/video2": 3, "dog/video1": 3, "dog/video2": 3}, ("cat", "dog")),
        ({"cat/images": 3, "dog/images": 3}, ("cat", "dog")),
        ({"train/train": 3, "train/bus": 3, "test/train": 1, "test/bus": 1}, ("bus", "train")),
        ({"Training/a": 3, "Training/b": 3, "Testing/a": 1, "Testing/b": 1}, ("a", "b")),
        ({"train/a": 3, "train/b": 3, "val/a/v1": 1, "val/a/v2": 1, "val/b": 1}, ("a", "b")),
    ],
)
def test_sound_folders_still_open(make_folder: MakeFolder, counts: dict[str, int], classes: tuple[str, ...]) -> None:
    assert open_data(f"folder:{make_folder(counts)}").info.class_names == tuple(sorted(classes))


@pytest.mark.parametrize(
    "counts",
    [
        {"training_set/a": 3, "test_set/a": 3},
        {"left/a": 3, "left/b": 3, "right/a": 3, "right/b": 3},
        {"train": 3, "test": 3, "bus": 3},
        {"train": 3, "test": 3},
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_classes_txt_answers_the_question(make_folder: MakeFolder, counts: dict[str, int], end: str) -> None:
    root = make_folder(counts)
    with pytest.raises(KdcError):
        open_data(f"folder:{root}")
    classes = sorted({name.split("/")[0] for name in counts})
    (root / "classes.txt").write_bytes(end.join(classes).encode())
    data = open_data(f"folder:{root}")
    assert data.info.class_names == tuple(classes)
    assert not [note for note in data.info.notes if "classes.txt" in note]


@pytest.mark.parametrize("content", [b"cat\ndog\n", b"\xff\xfe", b""])
def test_a_classes_txt_that_says_something_else_answers_nothing(make_folder: MakeFolder, content: bytes) -> None:
    root = make_folder({"training_set/a": 3, "test_set/a": 3})
    (root / "classes.txt").write_bytes(content)
    with pytest.raises(KdcError, match="training_set, which sound like splits"):
        open_data(f"folder:{root}")
    splits = make_folder({"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 1}, "splits")
    (splits / "classes.txt").write_bytes(content)
    assert open_data(f"folder:{splits}").info.class_names == ("a", "b")


@pytest.mark.parametrize("inner", ["flowers", "flowers/flowers", "data/train"])
def test_a_wrapper_is_named_with_what_to_type(make_folder: MakeFolder, inner: str) -> None:
    root = make_folder({f"{inner}/rose": 3, f"{inner}/tulip": 3})
    (root / "README.md").write_text("unpacked")
    (root / "__MACOSX").mkdir()
    with pytest.raises(KdcError) as raised:
        open_data(f"folder:{root}")
    first = inner.split("/")[0]
    assert (
        raised.value.message == f"{root} holds one folder, {first}, and the folders rose, tulip lie in {root}/{inner}"
    )
    assert raised.value.hint == f"folder:{root}/{inner}"
    assert open_data(raised.value.hint).info.class_names == ("rose", "tulip")


def test_a_wrapper_within_a_split(make_folder: MakeFolder) -> None:
    root = make_folder({"train/set/a": 3, "train/set/b": 3, "test/set/a": 1, "test/set/b": 1})
    with pytest.raises(KdcError, match="train holds one folder, set, and the folders a, b lie in") as raised:
        open_data(f"folder:{root}")
    assert raised.value.hint == f"move them to {root}/train"


SIDECARS = [
    "@eaDir", "__MACOSX", ".ipynb_checkpoints", "#recycle", "lost+found", ".AppleDouble", "$RECYCLE.BIN",
    "System Volume Information", ".thumbnails", ".Trash-1000", "@Recycle", "#snapshot", "__pycache__",
]  # fmt: skip


@pytest.mark.parametrize("name", SIDECARS)
def test_what_systems_and_tools_leave_is_no_class_at_any_depth(
    make_folder: MakeFolder, make_bytes: MakeBytes, name: str
) -> None:
    root = make_folder({"train/a/deep": 3, "train/b": 3, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1})
    for place in ("", "train", "val", "test", "train/a", "train/a/deep", "train/b"):
        (root / place / name / "a").mkdir(parents=True)
        (root / place / name / "a" / "000.png@SynoEAStream.jpg").write_bytes(make_bytes(1))
        (root / place / name / "thumb.jpg").write_bytes(make_bytes(2))
    data = open_data(f"folder:{root}")
    assert data.info.class_names == ("a", "b")
    assert data.info.counts == {"train": 6, "validation": 2, "test": 2}
    assert data.info.notes == ()


def test_apple_double_files_are_no_images(make_folder: MakeFolder, make_bytes: MakeBytes) -> None:
    root = make_folder({"a": 3, "b": 3})
    for name in ("a/._000.png", "b/._001.png", "._a"):
        (root / name).write_bytes(b"\0\5\x16\7")
    assert sum(open_data(f"folder:{root}").info.counts.values()) == 6
    (root / "a" / "new.png").write_bytes(make_bytes(99))
    more = open_data(f"folder:{make_folder({'c': 3, 'd': 3}, 'other')}", unlabelled=f"folder:{root}").info.unlabelled
    assert more is not None
    assert more.count == 1


def test_a_hidden_folder_that_no_tool_leaves_is_told(make_folder: MakeFolder) -> None:
    root = make_folder({"java": 3, "rust": 3, ".net": 3, ".git": 0, ".cache": 0})
    assert "ignored the folder .net: its name begins with a dot" in open_data(f"folder:{root}").info.notes


def test_held_out_images_among_the_unlabelled_are_told_by_any_name_at_any_depth(
    make_folder: MakeFolder, make_bytes: MakeBytes
) -> None:
    more = make_folder({"images/val2017": 0, "seg_test": 0, "images/train": 0}, "more")
    for number, place in enumerate(("images/val2017", "seg_test", "images/train")):
        (more / place / "x.png").write_bytes(make_bytes(500 + number))
    data = open_data(f"folder:{make_folder({'a': 3, 'b': 3})}", unlabelled=f"folder:{more}")
    assert "unlabelled: the images in images/val2017, seg_test are taken too" in data.info.notes


def test_folders_that_archives_leave_twice(make_folder: MakeFolder) -> None:
    root = make_folder({"tiles/tiles/tumor": 3, "tiles/tiles/stroma": 3, "larger/larger": 3})
    with pytest.raises(KdcError, match="tiles, which holds another tiles with the folders stroma, tumor"):
        open_data(f"folder:{root}")
    again = make_folder({"cat/cat": 5, "dog/dog": 5}, "again")  # nothing is lost where no folders lie in them
    assert open_data(f"folder:{again}").info.class_names == ("cat", "dog")


def test_a_class_may_be_called_mask_or_images() -> None:
    for names in (("mask", "no mask"), ("images", "texts"), ("labels", "boxes"), ("annotated", "plain")):
        assert doubt(flat(*names)) == ""


def test_masks_beside_their_images_are_told(make_folder: MakeFolder) -> None:
    root = make_folder({"benign": 6, "normal": 6})
    for number in range(2):
        image = sorted((root / "benign").iterdir())[number]
        other = sorted((root / "normal").iterdir())[number]
        mask = image.with_name(f"{image.stem}_mask{image.suffix}")
        mask.write_bytes(other.read_bytes()[:-4] + other.read_bytes()[-4:])
    (root / "normal" / "a_mask.png").write_bytes(image.read_bytes())  # there is no "a"
    notes = open_data(f"folder:{root}").info.notes
    first = sorted((root / "benign").glob("*_mask.png"))[0].relative_to(root).as_posix()
    assert (
        "2 images are called like masks of others beside them, and are learned from like these, e.g. " + first
    ) in notes
