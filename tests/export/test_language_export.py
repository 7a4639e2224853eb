"""Language models in the runtimes that generate text: what they answer, against transformers."""

import json
from pathlib import Path

import numpy as np
import pytest

from compressor.errors import KdcError
from compressor.export.language import build, language_builder_of
from compressor.export.language.base import LanguageBuilder, require_tokens
from compressor.export.language.ort_genai import _require_runnable
from compressor.progress import Silent
from compressor.runtimes import RUNTIMES
from tests.export.language_kit import (
    EACH,
    FLOAT,
    LIMIT,
    VOCABULARY,
    asked,
    blocks_of,
    given,
    made,
    reference,
    write_blocks,
)
from tests.tasks.causal_lm.kit import documents, write_llama


@pytest.mark.slow
@EACH
def test_log_probabilities_are_those_of_transformers(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, runtime: str
) -> None:
    source, precision = given(tmp_path_factory), FLOAT[runtime]
    folder, blocks = made(tmp_path_factory, runtime, precision), blocks_of(source)
    path, out = write_blocks(tmp_path / "blocks.npz", blocks), tmp_path / "out.npy"
    load = {"op": "load", "model": str(folder), "precision": precision, "threads": 1}
    loaded, executed, scored = asked(
        runtime, load, {"op": "executed"}, {"op": "score", "path": str(path), "out": str(out), "batch": 2}
    )
    assert (loaded["limit"], loaded["vocabulary"]) == (LIMIT, VOCABULARY)
    assert executed == {"ok": True, "executed_precision": RUNTIMES[runtime].precisions[precision]}
    assert scored["tokens"] == sum(len(block) - 1 for block in blocks)
    told = np.load(out)
    assert told.dtype == np.float32
    start = 0
    for block in blocks:
        assert told[start] == 0, "nothing is asked of a block's first token"
        expected = reference(source, block[: LIMIT + 1])[np.arange(len(block) - 1), block[1:]]
        np.testing.assert_allclose(told[start + 1 : start + len(block)], expected, atol=1e-4)
        start += len(block)
    assert start == len(told)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["blocks.npz", "out.npy"]


@pytest.mark.slow
@EACH
def test_it_goes_on_as_transformers_does_greedily(tmp_path_factory: pytest.TempPathFactory, runtime: str) -> None:
    """Also past the token that ends a text: the most probable one at each step by the whole text so far, so that what
    is read at once and what is kept from step to step are the same."""
    source, precision = given(tmp_path_factory), FLOAT[runtime]
    folder, prompts = made(tmp_path_factory, runtime, precision), [block[:20] for block in blocks_of(source)]
    load = {"op": "load", "model": str(folder), "precision": precision, "threads": 1}
    _, *replies = asked(runtime, load, *({"op": "generate", "prompt": prompt, "tokens": 30} for prompt in prompts))
    seen: set[int] = set()
    for prompt, reply in zip(prompts, replies, strict=True):
        assert len(reply["ids"]) == 30
        whole = [*prompt, *reply["ids"]]
        assert reply["ids"] == reference(source, whole)[len(prompt) - 1 : -1].argmax(axis=1).tolist()
        assert reply["prompt_ms"] > 0
        assert len(reply["token_ms"]) == 29
        assert min(reply["token_ms"]) > 0
        seen |= set(reply["ids"])
    assert len(seen) > 20, "answers that are all alike would show nothing"
    assert 0 in seen, "the token that ends a text"


@pytest.mark.slow
@EACH
def test_a_text_becomes_the_tokens_of_training(tmp_path_factory: pytest.TempPathFactory, runtime: str) -> None:
    from tokenizers import Tokenizer

    source, precision = given(tmp_path_factory), FLOAT[runtime]
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    folder, texts = made(tmp_path_factory, runtime, precision), ["", *documents(2), "naïve — 東京 👍🏽\n\n  x"]
    load = {"op": "load", "model": str(folder), "precision": precision, "threads": 1}
    _, *replies = asked(runtime, load, *({"op": "text", "prompt": text, "tokens": 5} for text in texts))
    for text, reply in zip(texts, replies, strict=True):
        assert reply["ids_in"] == [1, *tokenizer.encode(text, add_special_tokens=False).ids]
        whole = reply["ids_in"]
        for _ in range(5):
            whole = [*whole, int(reference(source, whole)[-1].argmax())]
        assert reply["text"] == tokenizer.decode(whole[-5:], skip_special_tokens=True)


@pytest.mark.slow
@EACH
def test_what_a_model_cannot_read_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, runtime: str
) -> None:
    precision = FLOAT[runtime]
    folder = made(tmp_path_factory, runtime, precision)
    load = {"op": "load", "model": str(folder), "precision": precision, "threads": 1}
    long = write_blocks(tmp_path / "long.npz", [[5] * (LIMIT + 2)])
    strange = write_blocks(tmp_path / "strange.npz", [[5, VOCABULARY]])
    np.savez(tmp_path / "other.npz", ids=np.zeros(3))
    out = str(tmp_path / "out.npy")
    before, missing, _, *replies = asked(
        runtime,
        {"op": "generate", "prompt": [1], "tokens": 1},
        {**load, "model": str(tmp_path / "none")},
        load,
        {"op": "generate", "prompt": [1] * 100, "tokens": LIMIT - 99},
        {"op": "generate", "prompt": [], "tokens": 1},
        {"op": "generate", "prompt": [VOCABULARY], "tokens": 1},
        {"op": "generate", "prompt": [1] * 100, "tokens": LIMIT - 100},
        {"op": "text", "prompt": "ox " * 500, "tokens": 1},
        *(
            {"op": "score", "path": str(path), "out": out, "batch": 1}
            for path in (long, strange, tmp_path / "other.npz")
        ),
        {**load, "precision": "fp8"},
        {"op": "predict"},
    )
    assert (before["kind"], missing["kind"]) == ("bad-request", "failed")
    said = [reply.get("message", "") for reply in replies]
    assert said[0] == f"100 tokens and {LIMIT - 99} new ones are more than the {LIMIT} of the model"
    assert said[1] == said[2] == f"generate needs prompt, a list of tokens from 0 to {VOCABULARY - 1}"
    assert len(replies[3]["ids"]) == LIMIT - 100
    assert f"are more than the {LIMIT} of the model" in said[4]
    assert said[5] == f"a block of {LIMIT + 1} tokens; the model takes {LIMIT} at most"
    assert "tokens beyond 0 to 319" in said[6]
    assert "does not hold ids and starts" in said[7]
    assert "has no precision fp8; known: " in said[8]
    assert "score, text" in said[9], "what classifiers are asked for is unknown here"
    assert not Path(out).exists()


@pytest.mark.slow
def test_an_architecture_that_the_builder_does_not_know_is_refused(tmp_path: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from compressor.models import load_model
    from compressor.tasks.causal_lm.shipping import transformers_folder

    write_llama(tmp_path / "gpt2", 1)  # for its tokenizer
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    transformers_folder(load_model(f"hf:{tmp_path / 'gpt2'}", task="causal-lm"), tmp_path / "model")
    with pytest.raises(KdcError, match="builds no model of the architecture GPT2LMHeadModel") as caught:
        build(tmp_path / "model", "onnxruntime-genai", "fp32", tmp_path / "out", max_length=8, progress=Silent())
    assert "openvino-genai" in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpt2", "model"], "nothing half-written stays"


def test_a_runtime_of_classifiers_is_refused(tmp_path: Path) -> None:
    for runtime, hint in (("onnxruntime", "onnxruntime-genai does"), ("litert", "")):
        with pytest.raises(KdcError, match=f"{runtime} generates no text, and the model is a language model") as caught:
            build(tmp_path, runtime, "fp32", tmp_path / "out", max_length=8, progress=Silent())
        assert caught.value.hint == hint
    with pytest.raises(KdcError, match="unknown precision fp16 of runtime onnxruntime-genai"):
        build(tmp_path, "onnxruntime-genai", "fp16", tmp_path / "out", max_length=8, progress=Silent())


def test_another_tokenizer_is_noticed(tmp_path: Path) -> None:
    write_llama(tmp_path, 1)
    from tokenizers import Tokenizer

    right = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    def encode(text: str) -> list[int]:
        ids: list[int] = right.encode(text, add_special_tokens=False).ids
        return ids

    require_tokens(tmp_path, encode, "the runtime")
    with pytest.raises(KdcError, match=r"the runtime reads '👍.*' as other tokens"):
        require_tokens(tmp_path, lambda text: encode(text.replace("\u200d", "")), "the runtime")


@EACH
def test_every_row_has_its_builder(runtime: str) -> None:
    assert isinstance(language_builder_of(runtime), LanguageBuilder)
    assert {"int8", "int4", FLOAT[runtime]} == set(RUNTIMES[runtime].precisions)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ({"head_size": 24}, "runs no attention with heads of 24, only of multiples of 16"),
        (
            {"head_size": 32, "sliding_window": {"window_size": 16}},
            "reads no text at once that is longer than the model's attention, 16 tokens",
        ),
        ({"head_size": 32, "sliding_window": {"window_size": 64}}, None),
    ],
)
def test_what_would_fail_where_it_runs_is_not_built(
    tmp_path: Path, decoder: dict[str, object], message: str | None
) -> None:
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"context_length": 64, "decoder": decoder}}))
    if message is None:
        _require_runnable(tmp_path)
        return
    with pytest.raises(KdcError, match=message) as caught:
        _require_runnable(tmp_path)
    assert caught.value.hint == "choose openvino-genai"


@pytest.mark.slow
@EACH
def test_an_export_begins_and_ends_whole(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, runtime: str
) -> None:
    source = given(tmp_path_factory)
    config = json.loads((source / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 0, 2)
    (tmp_path / "out").mkdir()
    with pytest.raises(KdcError, match="exists already"):
        build(source, runtime, FLOAT[runtime], tmp_path / "out", max_length=8, progress=Silent())
    with pytest.raises(KdcError, match=f"takes {LIMIT} tokens of this model, fewer than the {LIMIT + 1} of a block"):
        build(source, runtime, FLOAT[runtime], tmp_path / "new", max_length=LIMIT + 1, progress=Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
