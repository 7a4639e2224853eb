"""What a language model answers: as transformers' own generation does, the same for the same question."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.completions.asking import Asking
from compressor.completions.local import complete_here
from compressor.data.completion_files import read_completions
from compressor.errors import KdcError
from compressor.models import load_model
from compressor.models.loaded import LoadedModel
from compressor.schema.completions import Completion, Question
from compressor.tasks.causal_lm.generation import answerer
from tests.kit import Ended, Hearing
from tests.tasks.causal_lm.kit import CHAT, documents, write_jsonl, write_llama

Kdc = Callable[..., Ended]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama") / "llama", 2)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_model(f"hf:{folder}", task="causal-lm")


def asked(prompt: str, **more: Any) -> Question:
    return Question(**{"prompt": prompt, "model": "m", "mode": "text", "temperature": 0.0, "max_tokens": 12, **more})


@pytest.mark.parametrize("mode", ["text", "chat"])
def test_the_most_probable_tokens_are_those_of_transformers(folder: Path, loaded: LoadedModel, mode: str) -> None:
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|end|>", chat_template=CHAT
    )
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    answer = answerer(loaded, CPU)
    for prompt in documents(4):
        if mode == "chat":
            messages = [{"role": "user", "content": prompt}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(prompt, return_tensors="pt")["input_ids"]  # its post-processor puts <|start|> before it
        made = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=2
        )
        new = made[0, ids.shape[1] :]
        got = answer(asked(prompt, mode=mode))
        assert got.completion == tokenizer.decode(new, skip_special_tokens=True)
        assert got.finish_reason == ("stop" if int(new[-1]) == 0 else "length")
        new = new[: -1 if int(new[-1]) == 0 else None]
        with torch.no_grad():
            whole = theirs(torch.cat([ids[0], new])[None]).logits[0].log_softmax(-1)
        expected = [float(whole[ids.shape[1] - 1 + at, token]) for at, token in enumerate(new.tolist())]
        assert got.logprobs == pytest.approx(expected, abs=1e-4)
        assert got.tokens is not None
        assert len(got.tokens) == len(expected)


def test_what_is_drawn_goes_by_the_question_alone(loaded: LoadedModel) -> None:
    questions = [asked("the farmer saw", temperature=2.0, seed=seed, sample=seed) for seed in range(6)]
    first = {question.seed: answerer(loaded, CPU)(question).completion for question in questions}
    torch.manual_seed(5)
    answer = answerer(loaded, CPU)
    assert {question.seed: answer(question).completion for question in reversed(questions)} == first
    assert len({*first.values()}) > 3, "other seeds draw others"
    assert answer(asked("the farmer saw", temperature=2.0, seed=0, max_tokens=11)).completion != first[0]


def test_draws_follow_the_probabilities(loaded: LoadedModel) -> None:
    """The first token of 600 draws, against the softmax at that temperature."""
    answer = answerer(loaded, CPU)
    drawn = [answer(asked("the", temperature=0.5, seed=seed, max_tokens=1)) for seed in range(600)]
    greedy = answer(asked("the", max_tokens=1))
    assert greedy.logprobs is not None
    share = sum(each.tokens == greedy.tokens for each in drawn) / len(drawn)
    network: Any = loaded.network
    [(ids, _)] = network.tokenizer.tokens(["the"], special=False)
    with torch.no_grad():
        logits = network(torch.tensor([[1, *ids]]), torch.ones(1, len(ids) + 1, dtype=torch.int64))[0, -1]
    expected = float((logits / 0.5).softmax(-1).max())
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 600)


def test_a_prompt_without_room_is_told(loaded: LoadedModel) -> None:
    answer = answerer(loaded, CPU)
    with pytest.raises(KdcError, match="leaves no room for an answer: the model takes 128"):
        answer(asked("ox " * 200))
    almost = answer(asked("ox " * 40, max_tokens=1000))
    assert almost.finish_reason in ("length", "stop")


def test_an_interruption_says_what_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answerer(loaded: LoadedModel, device: torch.device) -> Callable[[Question], Completion]:
        def answer(question: Question) -> Completion:
            if question.prompt == "c":
                raise KeyboardInterrupt
            return Completion(**question.model_dump(), completion="x")

        return answer

    monkeypatch.setattr("compressor.tasks.causal_lm.generation.answerer", answerer)
    prompts, heard = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": letter} for letter in "abcd"]), Hearing()
    with pytest.raises(KeyboardInterrupt):
        complete_here(
            f"hf:{folder}",
            f"jsonl:{prompts}",
            tmp_path / "out.jsonl",
            Asking(licence="MIT"),
            "causal-lm",
            progress=heard,
        )
    assert "stopped: 2 of 4 were answered and are kept; --resume asks for the rest" in heard.warnings
    assert [row.prompt for row in read_completions(tmp_path / "out.jsonl").rows] == ["a", "b"]


@pytest.mark.slow
def test_a_table_of_a_model_that_runs_here(folder: Path, tmp_path: Path, kdc: Kdc) -> None:
    data = write_jsonl(tmp_path / "p.jsonl", [{"prompt": text} for text in documents(8)] + [{"prompt": "ox " * 200}])
    (folder / "README.md").write_text("---\nlicense: gemma\nlicense_link: https://ai.google.dev/gemma/terms\n---\n")
    command = (
        "predict", "--teacher", f"hf:{folder}", "--data", f"jsonl:{data}", "--temperature", 1.5, "--samples", 2,
        "--seed", 7, "--max-tokens", 10, "--logprobs",
    )  # fmt: skip
    ended = kdc(*command, "--out", tmp_path / "c.jsonl", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["asked"], told["before"], sum(told["unanswered"].values())) == (16, 0, 2)
    assert (told["licence"], told["terms"]) == ("gemma", "https://ai.google.dev/gemma/terms")
    rows = read_completions(tmp_path / "c.jsonl").rows
    assert {(row.licence, row.seed) for row in rows} == {("gemma", 7), ("gemma", 8)}
    assert all(row.model.startswith("hf:llama (") and str(tmp_path) not in row.model for row in rows)
    whole = (tmp_path / "c.jsonl").read_bytes()
    (tmp_path / "c.jsonl").write_bytes(whole[: len(whole) // 2])
    ended = kdc(*command, "--out", tmp_path / "c.jsonl", "--resume")
    assert ended.code == 0, ended.err
    assert (tmp_path / "c.jsonl").read_bytes() == whole, "what is resumed ends in the same bytes"
    ended = kdc(*command, "--out", tmp_path / "d.jsonl", "--licence", "MIT")
    assert ended.code == 2
    assert "says itself that it is gemma" in ended.err
    for option in (("--concurrency", 2), ("--top-k", 3), ("--overwrite",), ("--plan",)):
        assert kdc(*command, "--out", tmp_path / "d.jsonl", *option).code == 2
    assert not (tmp_path / "d.jsonl").exists()
