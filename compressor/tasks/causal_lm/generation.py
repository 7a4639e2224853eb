"""What a causal language model answers to a prompt: token by token, greedily or drawn, the same for the same question;
and such answers as documents to learn from."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from compressor.data.samples import Split, contents_of
from compressor.data.texts import digest_of, normalised
from compressor.errors import KdcError
from compressor.models.features import inner_of
from compressor.models.loaded import LoadedModel
from compressor.modes import freeze
from compressor.schema.completions import Completion, Question
from compressor.tasks.causal_lm.documents import Chat, Document, Message, Written
from compressor.tasks.causal_lm.models.network import CausalLm, position_limit
from compressor.tasks.causal_lm.opening import documents_of
from compressor.tasks.causal_lm.tokenizer import DocumentTokenizer

__all__ = ["answerer", "prompts_in", "split_of", "stops_of", "texts_in"]

MOST_LENGTH = 1_000_000


def answerer(loaded: LoadedModel, device: torch.device) -> Callable[[Question], Completion]:
    """A function that answers a question.

    Args:
        loaded: a causal language model.
        device: where it computes.

    Returns:
        The function. At temperature 0 it takes the most probable token at each step, the first of equals; else it draws
        from softmax(logits / temperature), by a seed that the whole question is part of: its place among others, and
        what was answered before, change nothing. `logprobs` are at temperature 1. It raises KdcError for a prompt that
        leaves no room for an answer.
    """
    network = inner_of(loaded.network)
    assert isinstance(network, CausalLm)
    freeze(network).to(device)
    limit = position_limit(network.model) or MOST_LENGTH
    stops = stops_of(network)

    def answer(question: Question) -> Completion:
        ids = _prompt(question, network.tokenizer)
        most = question.max_tokens or MOST_LENGTH
        room = limit - len(ids)
        if room < 1:
            raise KdcError(f"a prompt of {len(ids):,} tokens leaves no room for an answer: the model takes {limit:,}")
        made, logprobs, ended = _continued(network, ids, min(most, room), stops, question, device)
        tokens = [network.tokenizer.decoded([token]) for token in made]
        return Completion(
            **question.model_dump(),
            completion=_text(network.tokenizer, ids, made),
            finish_reason="stop" if ended else "length",
            tokens=tuple(tokens),
            logprobs=tuple(logprobs),
        )

    return answer


def _prompt(question: Question, tokenizer: DocumentTokenizer) -> list[int]:
    """The tokens that the answer follows: of a chat as its template asks for it, else a document's start and text."""
    chat = question.mode == "chat"
    text = tokenizer.asked(question.prompt) if chat else question.prompt
    [(ids, _)] = tokenizer.tokens([text], special=chat)
    return ids if chat and ids else [tokenizer.start_id, *ids]


def stops_of(network: CausalLm) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, and those of the model's generation_config.json."""
    stated = getattr(getattr(network.model, "generation_config", None), "eos_token_id", None)
    listed = stated if isinstance(stated, (list, tuple)) else [stated]
    return frozenset({network.tokenizer.end_id, *(token for token in listed if isinstance(token, int))})


def _continued(
    network: CausalLm, ids: list[int], most: int, stops: frozenset[int], question: Question, device: torch.device
) -> tuple[list[int], list[float], bool]:
    """The tokens that follow, their log-probabilities, and whether one of `stops` came; that one is left out. By
    transformers' own generation, told of everything: what a model's files say of sampling is not asked for."""
    from transformers import GenerationConfig

    sampled = {"temperature": question.temperature, "top_k": 0, "top_p": 1.0} if question.temperature else {}
    config = GenerationConfig(
        do_sample=bool(question.temperature), max_new_tokens=most, eos_token_id=sorted(stops),
        pad_token_id=network.tokenizer.pad_id, return_dict_in_generate=True, output_logits=True, **sampled,
    )  # fmt: skip
    model: Any = network.model
    model.generation_config = GenerationConfig()  # it would fill in what `config` leaves out
    given = torch.tensor([ids], device=device)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(int(question.digest[:15], 16))
        out = model.generate(given, attention_mask=torch.ones_like(given), generation_config=config)
    made: list[int] = out.sequences[0, len(ids) :].tolist()
    logprobs = [float(logits[0].float().log_softmax(-1)[token]) for logits, token in zip(out.logits, made, strict=True)]
    ended = bool(made) and made[-1] in stops
    return made[: len(made) - ended], logprobs[: len(made) - ended], ended


def _text(tokenizer: DocumentTokenizer, ids: list[int], made: list[int]) -> str:
    """What the tokens say behind the prompt: some tokenizers leave out a blank at the start of what they decode."""
    whole, before = tokenizer.decoded([*ids, *made]), tokenizer.decoded(ids)
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decoded(made)


def split_of(rows: Sequence[Completion]) -> Split:
    """Completions as a training split: of a chat the answer counts, else what follows the prompt."""
    documents = [_document(row) for row in rows]
    return Split(
        name="train",
        ids=tuple(row.digest[:16] for row in rows),
        labels=np.zeros(len(rows), np.int64),
        read=lambda number: documents[number],
        contents=contents_of(digest_of([normalised(row.prompt), normalised(row.completion)]) for row in rows),
    )


def _document(row: Completion) -> Document:
    if row.mode == "chat":
        return Chat((Message("user", row.prompt), Message("assistant", row.completion)))
    return Written(row.prompt + row.completion, len(row.prompt))


def prompts_in(split: Split) -> list[str]:
    """The prompts of a split: of a chat what the user says, first of all; of a text without one, all of it, since who
    asks with it has the text."""
    prompts = []
    for document in documents_of(split):
        if isinstance(document, Chat):
            prompts += [message.content for message in document.messages if message.role == "user"][:1]
        elif isinstance(document, Written):
            prompts.append(document.text[: document.prompt or None])
    return prompts


def texts_in(split: Split) -> list[str]:
    """What counts in a split: what the assistant says, completions, and texts."""
    texts = []
    for document in documents_of(split):
        if isinstance(document, Chat):
            texts += [message.content for message in document.messages if message.role == "assistant"]
        else:
            texts.append(document.text[document.prompt :])
    return texts
