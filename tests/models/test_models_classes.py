"""Pitfalls, "Classes by position": classes are matched by name, never by position."""

from pathlib import Path

import pytest
import torch
from torch import nn

from compressor.errors import KdcError
from compressor.models import LoadedModel, map_classes, with_classes
from compressor.models.classes import imagenet_spellings, spellings_of
from compressor.models.references import with_class_file
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.student import Weights

PREPROCESS = ImagePreprocess(input_size=(4, 4), resize=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
WEIGHTS = Weights(source="timm:small", architecture="small", sha256="0" * 64, licence="mit", parameters=1)


def model(names: tuple[tuple[str, ...], ...] | None, outputs: int = 3) -> LoadedModel:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, outputs))
    return LoadedModel(network, PREPROCESS, names, WEIGHTS, "timm")


ANIMALS = model((("cat",), ("Dog",), ("sea_lion",)))
IMAGENET = model(imagenet_spellings(), 1000)


@pytest.mark.parametrize(
    ("names", "index"),
    [
        (["cat", "Dog", "sea_lion"], [0, 1, 2]),
        (["sea_lion", "cat"], [2, 0]),
        (["Sea Lion", "dog", "CAT"], [2, 1, 0]),
        (["sea  lion", "dog"], [2, 1]),
    ],
)
def test_names_are_found_in_any_order_and_spelling(names: list[str], index: list[int]) -> None:
    assert map_classes(ANIMALS, names) == index


@pytest.mark.parametrize(
    ("names", "index"),
    [
        (["tench", "goldfish"], [0, 1]),
        (["n01443537", "n01440764"], [1, 0]),
        (["tench, Tinca tinca", "Carassius auratus"], [0, 1]),
        (["Tiger_Cat", "egyptian cat", "tabby"], [282, 285, 281]),
        (["maillot, tank suit", "n03710637"], [639, 638]),
        (["n02012849", "n03126707"], [134, 517]),  # both are cranes
    ],
)
def test_imagenet_classes_are_known_by_every_name_and_by_synset(names: list[str], index: list[int]) -> None:
    assert map_classes(IMAGENET, names) == index


@pytest.mark.parametrize(
    ("name", "help_"), [("crane", "'n02012849' or 'n03126707'"), ("maillot", "'n03710637' or 'tank suit'")]
)
def test_an_ambiguous_name_is_refused_with_the_names_that_are_clear(name: str, help_: str) -> None:
    with pytest.raises(KdcError, match=f"class {name} names 2 different outputs of timm:small") as caught:
        map_classes(IMAGENET, ["tench", name])
    assert help_ in caught.value.hint


def test_an_exact_match_comes_before_a_loose_one() -> None:
    assert map_classes(model((("Cat",), ("cat",), ("dog",))), ["cat", "Cat"]) == [1, 0]


def test_an_outputs_own_name_comes_before_anothers_synonym() -> None:
    assert imagenet_spellings()[744][:2] == ("projectile", "missile")
    assert map_classes(IMAGENET, ["missile", "projectile"]) == [657, 744]
    assert map_classes(IMAGENET, ["Missile"]) == [657]


def test_a_loose_match_of_two_outputs_is_ambiguous() -> None:
    with pytest.raises(KdcError, match="class CAT names 2 different outputs"):
        map_classes(model((("Cat",), ("cat",), ("dog",))), ["CAT", "dog"])


def test_a_missing_name_is_refused_and_teach_is_named() -> None:
    with pytest.raises(KdcError, match=r"no 'horse' among its 3 \('cat', 'Dog', 'sea_lion'\)") as caught:
        map_classes(ANIMALS, ["cat", "horse"])
    assert "kdc teach --teacher timm:small" in caught.value.hint


def test_many_missing_names_are_counted() -> None:
    with pytest.raises(KdcError, match="no '0', '1', '2', '3' and 6 more among its 1000"):
        map_classes(IMAGENET, [str(digit) for digit in range(10)])


def test_two_classes_that_are_one_output_are_refused() -> None:
    with pytest.raises(KdcError, match="classes tabby and tabby cat are the same output of timm:small"):
        map_classes(IMAGENET, ["tabby", "tench", "tabby cat"])


def test_a_model_without_names_is_refused() -> None:
    with pytest.raises(KdcError, match="the classes of timm:small have no names") as caught:
        map_classes(model(None), ["cat", "dog"])
    assert "--teacher-classes FILE" in caught.value.hint


def test_with_classes_picks_the_columns() -> None:
    images = torch.rand(2, 3, 4, 4)
    whole = ANIMALS.network(images)
    chosen = with_classes(ANIMALS, [2, 0], ["sea lion", "cat"])
    assert torch.equal(chosen.network(images), whole[:, [2, 0]])
    assert chosen.class_names == (("sea lion",), ("cat",))
    same = with_classes(ANIMALS, [0, 1, 2], ["a", "b", "c"])
    assert same.network is ANIMALS.network


def test_a_class_file_names_the_outputs(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("\ufeffcat\ndog\n\n sea lion \n", encoding="utf-8")
    assert with_class_file(model(None), file).class_names == (("cat",), ("dog",), ("sea lion",))


@pytest.mark.parametrize(
    ("text", "message"),
    [("cat\ndog\n", "has 2 different names, the teacher has 3 outputs"), ("cat\ndog\ncat\n", "has 2 different names")],
)
def test_a_class_file_must_name_each_output_once(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_text(text)
    with pytest.raises(KdcError, match=message):
        with_class_file(model(None), file)


COMPOSED, APART = "caf\xe9", "cafe\u0301"  # one name in Unicode's forms NFC and NFD


@pytest.mark.parametrize(("own", "asked"), [(APART, COMPOSED), (COMPOSED, APART), (APART.upper(), COMPOSED)])
def test_names_are_compared_in_one_form(own: str, asked: str) -> None:
    assert map_classes(model((("tea",), (own,), ("dog",))), [asked, "tea"]) == [1, 0]


def test_an_output_of_the_same_name_in_another_form_is_ambiguous() -> None:
    with pytest.raises(KdcError, match="names 2 different outputs"):
        map_classes(model(((APART,), (COMPOSED,), ("dog",))), [COMPOSED, "dog"])


def test_only_line_feeds_end_a_name_in_a_class_file(tmp_path: Path) -> None:
    """str.splitlines made three names of these two, for a teacher of three outputs."""
    file = tmp_path / "classes.txt"
    file.write_text("cat\nsea\u2028lion\n", encoding="utf-8")
    with pytest.raises(KdcError) as caught:
        with_class_file(model(None), file)
    assert r"line 2: the class name 'sea\u2028lion' holds a line break (U+2028)" in caught.value.message
    file.write_bytes(f"cat\r\n{APART}\r\ndog".encode())
    assert with_class_file(model(None), file).class_names == (("cat",), (COMPOSED,), ("dog",))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_class_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "classes.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(KdcError, match=r"--teacher-classes .*classes.txt cannot be read"):
        with_class_file(model(None), file)


def test_imagenet_names_are_recognised_however_a_configuration_writes_them() -> None:
    imagenet = imagenet_spellings()
    for column in (0, -2, -1):  # first name, whole description, synset
        assert spellings_of([spellings[column] for spellings in imagenet]) == imagenet
    other = [spellings[0] for spellings in imagenet]
    other[0], other[1] = other[1], other[0]
    assert spellings_of(other) == tuple((name,) for name in other)
    assert spellings_of(["cat", "dog"]) == (("cat",), ("dog",))
