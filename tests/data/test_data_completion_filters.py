"""What is left out of a teacher's completions, and counted."""

from typing import Any

import pytest

from compressor.data.completion_filters import filtered, repetition, told, word_f1
from compressor.errors import KdcError
from compressor.schema.completion_filters import CompletionFilters
from compressor.schema.completions import Completion


def row(prompt: str, completion: str, **more: Any) -> Completion:
    return Completion(prompt=prompt, completion=completion, **more)


def left(rows: list[Completion], held_out: tuple[str, ...] = (), **filters: Any) -> tuple[list[str], dict[str, int]]:
    kept, counts = filtered(rows, CompletionFilters(**filters), held_out)
    assert (counts.rows, counts.kept) == (len(rows), len(kept))
    assert counts.rows - counts.kept == sum(counts.left_out.values()), "each is counted once"
    return [each.completion for each in kept], counts.left_out


def test_what_is_safe_by_default() -> None:
    rows = [
        row("a", "fine\n\ttoo"), row("b", "  \n"), row("c", "cut", finish_reason="length"), row("d", "bell \x07"),
        row("e", "whole", finish_reason="stop"),
    ]  # fmt: skip
    kept, left_out = left(rows)
    assert kept == ["fine\n\ttoo", "whole"]
    assert left_out == {"shorter than 1 characters": 1, "cut off": 1, "with control characters": 1}
    assert left(rows, min_length=0, cut_off=False, controls=False)[1] == {}


@pytest.mark.parametrize("reason", ["length", "content_filter", "MAX_TOKENS", "error"])
def test_what_a_model_did_not_end_is_cut_off(reason: str) -> None:
    rows = [row("a", "whole", finish_reason="stop"), row("b", "part", finish_reason=reason)]
    assert left(rows) == (["whole"], {"cut off": 1})


def test_no_prompt_that_is_held_out() -> None:
    rows = [row("What is  a Zebra?", "x"), row("what is a marmot?", "y"), row("Café?", "z")]
    kept, left_out = left(rows, ("what is a zebra? ", "cafe\u0301?"))
    assert kept == ["y"]
    assert left_out == {"whose prompt is held out for validation or test": 2}


def test_no_text_that_is_held_out() -> None:
    """Whatever it was asked with; fewer words in a row are those of any text."""
    words = [f"w{number}" for number in range(20)]
    rows = [
        row("go on", " ".join(words[3:16]).upper()), row(" ".join(words[:12]), f"{words[12]}, {words[13]}"),
        row("other", " ".join(words[3:15])), row(" ".join(words[:13]), "and else"), row("x", "y"),
    ]  # fmt: skip
    kept, counts = filtered(rows, CompletionFilters(), (), ["too short", " ".join(words)])
    assert [each.prompt for each in kept] == ["other", " ".join(words[:13]), "x"]
    assert counts.left_out == {"that repeat 13 words of validation or test": 2}


def test_lengths() -> None:
    rows = [row("a", "123"), row("b", " 12345 "), row("c", "1234567")]
    assert left(rows, min_length=4, max_length=5)[0] == [" 12345 "]


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("a b c d", 1, 0.0),
        ("a a a a", 1, 0.75),
        ("a b a b a b", 2, 1 - 2 / 5),  # ab ba ab ba ab
        ("The cat. the CAT", 2, 1 - 2 / 3),  # the cat, cat the, the cat
        ("a b", 4, 0.0),
        ("", 1, 0.0),
    ],
)
def test_how_much_repeats(text: str, n: int, share: float) -> None:
    assert repetition(text, n) == pytest.approx(share)


def test_loops_are_left_out() -> None:
    rows = [row("a", "one two three four five six"), row("b", "no no no no no no no no no")]
    kept, left_out = left(rows, repetition=0.5)
    assert kept == ["one two three four five six"]
    assert left_out == {"that repeat themselves": 1}


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [
        ("the Nile", "the nile!", 1.0),
        ("the Nile", "the Rhine", 0.5),
        ("a b c", "c", 2 * 1 / 4),
        ("a a b", "a b b", 2 * 2 / 6),
        ("x", "y", 0.0),
        ("", "", 1.0),
        ("x", "", 0.0),
    ],
)
def test_how_far_two_answers_agree(first: str, second: str, score: float) -> None:
    assert word_f1(first, second) == pytest.approx(score)
    assert word_f1(second, first) == pytest.approx(score)


def test_samples_that_do_not_agree_are_left_out() -> None:
    rows = [
        row("river", "the Nile", sample=0), row("river", "Nile the", sample=1), row("river", "the Rhine", sample=2),
        row("king", "Arthur", sample=0), row("king", "Lear", sample=1),
        row("alone", "once", sample=0),
    ]  # fmt: skip
    # river: (1 + 0.5 + 0.5) / 3 = 0.67; the first one agrees best (1.5 of 2), with the second one, which is later.
    kept, left_out = left(rows, agreement=0.6)
    assert kept == ["the Nile"]
    assert left_out == {"whose prompt has a single sample": 1, "that samples of their prompt do not agree with": 4}
    with pytest.raises(KdcError, match=r"no completion is left of 6: .*looser filters"):
        filtered(rows, CompletionFilters(agreement=0.7))


def test_what_the_teacher_itself_finds_unlikely() -> None:
    rows = [
        row("a", "sure", logprobs=(-0.1, -0.3)), row("b", "guess", logprobs=(-2.0, -1.0)), row("c", "who knows"),
    ]  # fmt: skip
    kept, left_out = left(rows, log_likelihood=-1.0)
    assert kept == ["sure"]
    assert left_out == {"without log-probabilities": 1, "that the teacher finds unlikely": 1}


def test_one_of_each_prompt() -> None:
    rows = [row("a", "3", sample=1), row("b", "2"), row("a", "1", sample=0)]
    assert left(rows, one_each=True) == (["2", "1"], {"beside the first of their prompt": 1})


def test_what_people_are_told() -> None:
    _, counts = filtered([row("a", "x"), row("b", "")], CompletionFilters())
    assert told(counts) == "of 2 completions 1 are learned from; left out: 1 shorter than 1 characters"
    _, counts = filtered([row("a", "x")], CompletionFilters())
    assert told(counts) == "of 1 completions 1 are learned from"


@pytest.mark.parametrize("wrong", [{"repetition": 0}, {"agreement": 1.5}, {"log_likelihood": 1}, {"max_length": 0}])
def test_limits_that_mean_nothing(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        CompletionFilters(**wrong)  # type: ignore[arg-type]
