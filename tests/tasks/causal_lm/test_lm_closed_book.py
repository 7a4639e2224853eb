"""Questions whose answers stand in the training text: which are asked, what is right, and what a table counts."""

import sys
from pathlib import Path

import pytest

from benchmarks import closed_book
from benchmarks.closed_book import Answered, is_right, known, questions_of, table
from tests.tasks.causal_lm.kit import made_documents, write_jsonl


def test_what_the_text_answers_in_one_way_is_asked() -> None:
    texts = ["the ox saw the barn. the ox saw the barn, and the gull", "the gull saw the mast"]
    asked = [("the ox saw the", "barn"), ("the gull saw", "the"), ("the", "ox"), ("the gull", "saw"), ("a ship", "x")]
    assert known(asked, texts) == asked[:2] + asked[3:4]
    assert known(asked, [*texts, "the ox saw the oven"]) == asked[1:2] + asked[3:4]


def test_an_answer_is_right_where_it_begins_with_the_word() -> None:
    assert is_right(" Barn, and", "barn")
    assert not is_right(" barns", "barn")
    assert not is_right("the barn", "barn")
    assert not is_right(" ...", "barn")


def test_confident_errors_are_counted_side_by_side() -> None:
    """By hand: of four questions the teacher is wrong and sure of one, the student of two, one with the same words."""
    questions = [(f"question {number}", "yes") for number in range(4)]
    teacher = [
        Answered("yes", True, 0.9), Answered("no", False, 0.8), Answered("no", False, 0.2), Answered("yes", True, 0.1)
    ]  # fmt: skip
    student = [
        Answered("never", False, 0.7), Answered("no", False, 0.5), Answered("no", False, 0.4),
        Answered("yes", True, 1.0),
    ]  # fmt: skip
    lines = table(questions, teacher, student, 0.5, 8)
    assert "| right, of 4 | 2 | 1 |" in lines
    assert "| wrong, and sure of it (at 0.5 or more), of 4 | 1 | 2 |" in lines
    assert "| wrong, and not sure, of 4 | 1 | 1 |" in lines
    assert "| both wrong and sure; with the same words | 1 | 1 |" in lines
    assert lines[-2:] == [
        "| …question 1 | yes | wrong: no | 0.80 | wrong: no | 0.50 |",
        "| …question 0 | yes | yes | 0.90 | wrong: never | 0.70 |",
    ]
    assert len(table(questions, teacher, student, 0.5, 1)) == len(lines) - 1


def test_the_questions_on_the_king_james_text_are_forty() -> None:
    questions = questions_of(None)
    assert len({prompt for prompt, _ in questions}) == 40
    assert all(len(pair) == 2 and pair[1].isalpha() for pair in questions)


@pytest.mark.slow
def test_two_models_are_asked(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    made = made_documents(tmp_path_factory)
    rows = [{"prompt": "the farmer", "answer": "saw"}, {"prompt": "the farmer saw", "answer": "the"}]
    write_jsonl(tmp_path / "asked.jsonl", [*rows, {"prompt": "x", "answer": "y"}])
    monkeypatch.setattr(
        sys, "argv",
        [
            "closed_book", "--teacher", f"run:{made / 'teacher'}", "--student", f"hf:{made / 'llama'}", "--data",
            f"jsonl:{made / 'data.jsonl'}", "--questions", str(tmp_path / "asked.jsonl"), "--confident", "0",
        ],
    )  # fmt: skip
    closed_book.main()
    told = capsys.readouterr().out
    assert "2 of 3 questions: " in told
    assert "| right, of 2 | 2 | 0 |" in told
