"""`kdc predict --teacher api:…` against a real server that fails in every way that servers do."""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.completions.asking import Asking, complete
from compressor.completions.pool import Patience
from compressor.data.completion_files import read_completions
from compressor.errors import KdcError
from compressor.schema.completions import Completions
from tests.completions.conftest import Serve
from tests.completions.openai_server import KEY
from tests.kit import Ended, Hearing

Kdc = Callable[..., Ended]
Write = Callable[[int], str]
SOON = Patience(first_s=0.05, most_s=0.2)


def asked(
    url: str, data: str, out: Path, *, told: Hearing | None = None, resume: bool = False, **how: object
) -> Completions:
    asking = Asking(**{"timeout_s": 20.0, "licence": "MIT", **how})  # type: ignore[arg-type]
    return complete(f"api:{url}#teacher", data, out, asking, progress=told or Hearing(), resume=resume, patience=SOON)


def no_key_in(folder: Path, *texts: str) -> None:
    for text in texts:
        assert KEY not in text
    for path in folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("mode", ["chat", "text"])
def test_a_table_that_says_all(serve: Serve, prompts: Write, tmp_path: Path, mode: str, kdc: Kdc) -> None:
    server = serve()
    out = tmp_path / "out" / "completions.jsonl"
    ended = kdc(
        "predict", "--teacher", f"api:{server.url}#teacher", "--data", prompts(5), "--out", out, "--mode", mode,
        "--temperature", 0.7, "--seed", 3, "--samples", 2, "--max-tokens", 9, "--logprobs", "--licence", "CC-BY-NC-4.0",
        "--terms", "outputs train no competing model", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) | {"out": None, "teacher": None} == {
        "schema": 1, "out": None, "teacher": None, "asked": 10, "before": 0, "others": 0, "unanswered": {},
        "licence": "CC-BY-NC-4.0", "terms": "outputs train no competing model",
    }  # fmt: skip
    rows = {(row.prompt, row.sample): row for row in read_completions(out).rows}
    assert set(rows) == {(f"question {number}", sample) for number in range(5) for sample in range(2)}
    row = rows["question 4", 1]
    assert row.completion == "answer to question 4 [4]", "the second sample has the next seed"
    assert (row.model, row.answered_by, row.mode, row.temperature) == ("teacher", "teacher-2026", mode, 0.7)
    assert (row.max_tokens, row.seed, row.finish_reason) == (9, 4, "stop")
    assert (row.licence, row.terms) == ("CC-BY-NC-4.0", "outputs train no competing model")
    assert row.tokens == ("answer", "to", "question", "4", "[4]")
    assert row.log_likelihood == -0.5
    [sent] = [said["asked"] for said in server.log if said["prompt"] == "question 4" and said["asked"]["seed"] == 4]
    asks = {"messages": [{"role": "user", "content": "question 4"}]} if mode == "chat" else {"prompt": "question 4"}
    wanted = {"model": "teacher", "temperature": 0.7, "max_tokens": 9, "seed": 4, "logprobs": mode == "chat" or 1}
    assert sent == wanted | asks
    no_key_in(tmp_path, ended.out, ended.err)


FAULTS = ("429", "none", "500", "malformed", "drop", "503", "half", "no-choice")


def test_the_table_is_whole_whatever_the_server_does(serve: Serve, prompts: Write, tmp_path: Path) -> None:
    server, told, out = serve(*FAULTS), Hearing(), tmp_path / "c.jsonl"
    done = asked(server.url, prompts(40), out, told=told, concurrency=6)
    assert (done.asked, done.unanswered) == (40, {})
    rows = read_completions(out).rows
    assert {row.prompt for row in rows} == {f"question {number}" for number in range(40)}
    assert Counter(server.answered()) == Counter({f"question {number}": 1 for number in range(40)}), "none asked twice"
    met = Counter(row["what"] for row in server.log)
    assert all(met[fault] == 5 for fault in FAULTS if fault != "none"), "each was met"
    assert server.most <= 6
    no_key_in(tmp_path, *told.notes, *told.warnings)


def test_as_many_at_a_time_as_stated(serve: Serve, prompts: Write, tmp_path: Path) -> None:
    server = serve()
    server.delay_s = 0.05
    asked(server.url, prompts(12), tmp_path / "c.jsonl", concurrency=3)
    assert server.most == 3


def test_what_is_there_is_not_asked_again(serve: Serve, prompts: Write, tmp_path: Path, kdc: Kdc) -> None:
    server, out = serve(), tmp_path / "c.jsonl"
    asked(server.url, prompts(3), out)
    before = out.read_bytes()
    out.write_bytes(before + b'{"prompt": "question 3", "compl')
    plan = ("predict", "--teacher", f"api:{server.url}#teacher", "--out", out, "--licence", "MIT", "--resume")
    ended = kdc(*plan, "--data", prompts(5), "--plan", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["prompts"], told["questions"], told["answered"], told["to_ask"]) == (5, 5, 3, 2)
    assert told["key"] == "OPENAI_API_KEY"
    assert len(server.log) == 3, "a plan asks nothing"
    ended = kdc(*plan, "--data", prompts(5), "--plan")
    assert ended.out.splitlines()[-1] == f"3 of 5 are answered in {out}; 2 would be asked"
    done = asked(server.url, prompts(5), out, resume=True)
    assert (done.asked, done.before) == (2, 3)
    assert out.read_bytes().startswith(before)
    assert Counter(server.answered()) == Counter(f"question {number}" for number in range(5))
    other = asked(server.url, prompts(5), out, resume=True, temperature=1.0)
    assert (other.asked, other.before, other.others) == (5, 0, 5), "another setting is another question"
    assert len(read_completions(out).rows) == 10
    with pytest.raises(KdcError, match=r"the table says MIT of teacher, and now it is GPL-3\.0-only"):
        asked(server.url, prompts(5), out, resume=True, licence="GPL-3.0-only")
    with pytest.raises(KdcError, match=r"exists \(--resume"):
        asked(server.url, prompts(5), out)
    assert asked(server.url, prompts(5), out, resume=True).asked == 0
    assert len(server.log) == 10


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("401", "says 401: Incorrect API key: Bearer [key]"),
        ("quota", "the account has no credit left"),
        ("later", "it asks to wait 86,400 s"),
        ("temperature", "'temperature' does not support 0.0 with this model. Only 1 is supported"),
        ("redirect", "redirects elsewhere (307), where the key and the prompts would go along"),
    ],
)
def test_what_ends_all_is_said_once_and_nothing_is_lost(
    serve: Serve, prompts: Write, tmp_path: Path, kdc: Kdc, fault: str, said: str
) -> None:
    server, out = serve(*["none"] * 4, fault), tmp_path / "c.jsonl"
    ended = kdc(
        "predict", "--teacher", f"api:{server.url}#teacher", "--data", prompts(6), "--out", out, "--concurrency", 1
    )
    assert ended.code == 2
    assert said in ended.err
    assert "--resume goes on with what is missing" in ended.err
    assert len(ended.err.strip().splitlines()[-1:]) == 1
    assert "Traceback" not in ended.err
    assert len(read_completions(out).rows) == 4, "what was answered before is there"
    assert not [row for row in server.log if row["what"] == "GET"]
    no_key_in(tmp_path, ended.out, ended.err)
    assert asked(server.url, prompts(6), out, resume=True, licence=None).asked == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("400", "says 400: the prompt is too long"),
        ("200-400", "says 200: the prompt is too long"),
        ("refusal", "no text (I would rather not)"),
        ("echo", "the answer holds the key"),
        ("huge", "larger than 16,000,000 bytes"),
    ],
)
def test_a_question_without_an_answer_is_counted(
    serve: Serve, prompts: Write, tmp_path: Path, fault: str, said: str
) -> None:
    server, told = serve(fault, "none", "none"), Hearing()
    done = asked(server.url, prompts(3), tmp_path / "c.jsonl", told=told, concurrency=1)
    assert done.asked == 2
    [(why, count)] = done.unanswered.items()
    assert count == 1
    assert said in why
    assert any(said in warning for warning in told.warnings)
    assert len(read_completions(tmp_path / "c.jsonl").rows) == 2
    no_key_in(tmp_path, *told.notes, *told.warnings, why)


def test_a_model_that_has_another_name_for_the_most_tokens(serve: Serve, prompts: Write, tmp_path: Path) -> None:
    server = serve()
    server.limit = "max_completion_tokens"
    assert asked(server.url, prompts(9), tmp_path / "c.jsonl", concurrency=3, max_tokens=77).asked == 9
    assert [row["asked"]["max_completion_tokens"] for row in server.log] == [77] * 9
    assert {row.max_tokens for row in read_completions(tmp_path / "c.jsonl").rows} == {77}


def test_where_no_question_has_one_it_ends(serve: Serve, prompts: Write, tmp_path: Path) -> None:
    server = serve("400")
    with pytest.raises(KdcError, match=r"no question has an answer: 127\.0\.0\.1:[0-9]+ says 400"):
        asked(server.url, prompts(40), tmp_path / "c.jsonl", concurrency=1)
    assert len(server.log) <= 12


def test_where_none_of_a_few_questions_has_one_it_says_so(serve: Serve, prompts: Write, tmp_path: Path) -> None:
    server = serve("400")
    with pytest.raises(KdcError, match=r"no question has an answer: 127\.0\.0\.1:[0-9]+ says 400"):
        asked(server.url, prompts(3), tmp_path / "c.jsonl")
    fine = serve("none", "400", "none")
    assert asked(fine.url, prompts(2), tmp_path / "c.jsonl", resume=True, concurrency=1).asked == 1
    again = serve("400")
    assert asked(again.url, prompts(2), tmp_path / "c.jsonl", resume=True).asked == 0, "the table holds others"


def test_an_error_that_says_200_is_asked_for_again(serve: Serve, prompts: Write, tmp_path: Path) -> None:
    server = serve("200-429", "200-error", "none")
    assert asked(server.url, prompts(6), tmp_path / "c.jsonl", concurrency=1).asked == 6
    assert [row["what"] for row in server.log].count("answer") == 6


def test_answers_of_another_model_are_said(serve: Serve, prompts: Write, tmp_path: Path) -> None:
    server = serve()
    for model, count in (("openai/teacher", 0), ("teacher", 0), ("gpt-5", 0)):
        told = Hearing()
        complete(
            f"api:{server.url}#{model}",
            prompts(2),
            tmp_path / f"{len(model)}.jsonl",
            Asking(licence="MIT"),
            progress=told,
        )
        assert len(told.warnings) == count
    told = Hearing()
    server.named = "small-7b"
    asked(server.url, prompts(2), tmp_path / "c.jsonl", told=told)
    assert told.warnings == ["2 answers are of small-7b, as the endpoint says, and teacher was asked"]
    assert {row.answered_by for row in read_completions(tmp_path / "c.jsonl").rows} == {"small-7b"}


@pytest.mark.parametrize("fault", ["slow", "drip"])
def test_a_server_that_does_not_end_is_not_waited_for(serve: Serve, prompts: Write, tmp_path: Path, fault: str) -> None:
    server, begun = serve(fault, "none"), time.monotonic()
    done = asked(server.url, prompts(2), tmp_path / "c.jsonl", timeout_s=1.0, concurrency=1)
    assert done.asked == 2
    assert time.monotonic() - begun < 10


def test_a_server_that_is_not_there(prompts: Write, tmp_path: Path) -> None:
    with pytest.raises(KdcError, match=r"127\.0\.0\.1:9 cannot be reached: .*refused; tried 8 times"):
        asked("http://127.0.0.1:9/v1", prompts(2), tmp_path / "c.jsonl")


def test_a_server_that_comes_back_answers_the_rest(serve: Serve, prompts: Write, tmp_path: Path) -> None:
    server, out = serve(), tmp_path / "c.jsonl"
    server.delay_s = 0.05
    port, first = server.server_address[1], []

    def replaced() -> None:
        while len(server.log) < 8:
            time.sleep(0.01)
        server.shutdown()
        server.server_close()
        time.sleep(0.3)
        first.append(serve(port=port))

    thread = threading.Thread(target=replaced)
    thread.start()
    done = asked(server.url, prompts(30), out, concurrency=2)
    thread.join()
    assert done.asked == 30
    assert len(read_completions(out).rows) == 30
    assert Counter([*server.answered(), *first[0].answered()]) == Counter(f"question {number}" for number in range(30))
    assert first[0].answered()


def test_a_proxy_is_not_told_what_is_meant_for_this_machine(
    serve: Serve, prompts: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert asked(serve().url, prompts(1), tmp_path / "c.jsonl").asked == 1


def test_another_variable_holds_the_key(
    serve: Serve, prompts: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setenv("OTHER_KEY", os.environ["OPENAI_API_KEY"])
    monkeypatch.setenv("OPENAI_API_KEY", "wrong-wrong-wrong")
    assert asked(server.url, prompts(1), tmp_path / "a.jsonl", key_variable="OTHER_KEY").asked == 1
    with pytest.raises(KdcError, match=r"says 401: Incorrect API key: Bearer \[key\]"):
        asked(server.url, prompts(1), tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--top-k", 3), "--top-k is for teachers that answer by a class"),
        (("--task", "text-classification"), "--task is for teachers that answer by a class"),
        (("--overwrite",), "is added to and never replaced"),
        (("--samples", 2), "would be 2 times the same answer"),
        (("--mode", "talk"), "neither chat nor text"),
        (("--text-column", "a", "--text-column", "b"), "a prompt is one text"),
        (("--out", "table.csv"), "ends on .jsonl"),
        (("--out", "/dev/stdout"), "ends on .jsonl"),
        (("--key-variable", "NO_SUCH_VARIABLE"), "is not set"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_asked(
    serve: Serve, prompts: Write, tmp_path: Path, kdc: Kdc, options: tuple[object, ...], said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    server = serve()
    ended = kdc("predict", "--teacher", f"api:{server.url}#teacher", "--data", prompts(2), "--out", "c.jsonl", *options)
    assert ended.code == 2
    assert said in ended.err
    assert not server.log
    assert not (tmp_path / "c.jsonl").exists()


@pytest.mark.parametrize(
    "options", [("--temperature", 1), ("--resume",), ("--samples", 2), ("--logprobs",), ("--plan",)]
)
def test_a_teacher_of_classes_takes_no_options_of_words(kdc: Kdc, tmp_path: Path, options: tuple[object, ...]) -> None:
    ended = kdc("predict", "--teacher", "timm:resnet10t", "--data", "digits", "--out", tmp_path / "a.csv", *options)
    assert ended.code == 2
    assert ("for teachers that answer in words" in ended.err) or ("--plan says" in ended.err)


def test_no_student_learns_from_an_endpoint_directly(kdc: Kdc, tmp_path: Path) -> None:
    ended = kdc("distill", "--teacher", "api:https://x/v1#m", "--data", "digits", "--out", tmp_path / "run")
    assert ended.code == 2
    assert "kdc predict" in ended.err
