"""References are taken apart in one place."""

from pathlib import Path

import pytest

from compressor.references import Reference


@pytest.mark.parametrize(
    ("text", "scheme", "rest"),
    [
        ("run:teacher", "run", "teacher"),
        ("digits", "digits", None),
        ("digits:", "digits", ""),
        ("folder:/a:b/c", "folder", "/a:b/c"),
        ("", "", None),
        (":x", "", "x"),
    ],
)
def test_the_first_colon_ends_the_scheme(text: str, scheme: str, rest: str | None) -> None:
    assert Reference.parse(text) == Reference(text, scheme, rest)


def test_what_lies_in_a_folder() -> None:
    assert Reference.parse("run:a/b").folder("run") == Path("a/b")
    assert Reference.parse("run:a/b").folder("specialists") is None
    assert Reference.parse("run").folder("run") is None
    assert Reference.parse("timm:local-dir:a@b").local == Path("a@b")
    assert Reference.parse("hf:local-dir:a").local is None


@pytest.mark.parametrize(
    ("text", "name", "at"),
    [
        ("timm:resnet50", "resnet50", None),
        ("timm:resnet50@a.pth", "resnet50", "a.pth"),
        ("timm:resnet50@a@b.pth", "resnet50", "a@b.pth"),
        ("timm:resnet50@", "resnet50", ""),
        ("hf:owner/name@config", "owner/name", "config"),
        ("self", "", None),
    ],
)
def test_a_checkpoint_or_a_configuration_stands_after_the_first_at(text: str, name: str, at: str | None) -> None:
    assert (Reference.parse(text).name, Reference.parse(text).at) == (name, at)
