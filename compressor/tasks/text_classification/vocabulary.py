"""A vocabulary cut to what the training texts use: beyond a few layers, the table of tokens is most of a small encoder.

What stays are the tokens of the training texts, those with a meaning of their own, and single signs, out of which words
that the training texts do not have are put together. Training texts become the same tokens as before: WordPiece takes
the longest that fits, a unigram model the likeliest way through, and byte pairs are merged as before where all that a
token is merged out of stays.
"""

import copy
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel
from compressor.models.weights import tensors_sha256
from compressor.progress import Progress
from compressor.tasks.text_classification.feed import encoded_split, evaluation_batches, stacked
from compressor.tasks.text_classification.lengths import texts_of
from compressor.tasks.text_classification.models.classifier import TextClassifier
from compressor.tasks.text_classification.models.static import StaticClassifier, with_tokens
from compressor.tasks.text_classification.tokenization import TextTokenizer, kept, of_texts, tokenizer_of

__all__ = ["cut_tokenizer", "trimmed"]

KINDS = ("WordPiece", "WordLevel", "BPE", "Unigram")


def trimmed(student: LoadedModel, data: Dataset, progress: Progress) -> tuple[LoadedModel, str, str]:
    """The student with the tokens alone that the training texts use, its tokenizer.json, and what that changed, on
    validation, in words. Raises KdcError for a tokenizer of another kind."""
    network, preprocess = student.network, of_texts(student.preprocess)
    if not isinstance(network, (TextClassifier, StaticClassifier)):
        raise KdcError("--trim-vocabulary: the student is not one network with a table of tokens", "leave it out")
    before = tokenizer_of(preprocess)
    encoded = before.encode(texts_of(data.train), preprocess.max_length)
    padding = range(preprocess.pad_id + 1) if _positions_follow_padding(network) else (preprocess.pad_id,)
    used = {*np.unique(np.concatenate([row.ids for row in encoded])).tolist(), *padding}
    text, ids = cut_tokenizer(before.text, used)
    pad_id = int(np.searchsorted(ids, preprocess.pad_id))
    tokenizer = kept(TextTokenizer(text, "the trimmed tokenizer"))
    small: nn.Module
    if isinstance(network, StaticClassifier):
        small = with_tokens(network, ids, tokenizer.text)
    else:
        small = _with_tokens(network, ids, tokenizer.text, pad_id)
    changes = {"tokenizer": tokenizer.sha256, "vocabulary": len(ids), "pad_id": pad_id}
    weights = student.weights.model_copy(
        update={
            "sha256": tensors_sha256(small.state_dict()),
            "parameters": sum(parameter.numel() for parameter in small.parameters()),
        }
    )
    made = replace(student, network=small, preprocess=preprocess.model_copy(update=changes), weights=weights)
    told = _told(student, made, data.validation)
    progress.note(told)
    return made, tokenizer.text, told


def _positions_follow_padding(network: nn.Module) -> bool:
    """Whether positions are counted from the padding's id, as RoBERTa's are: it must stay what it is."""
    return any(hasattr(module, "padding_idx") and not isinstance(module, nn.Embedding) for module in network.modules())


def cut_tokenizer(text: str, used: Iterable[int]) -> tuple[str, NDArray[np.int64]]:
    """A tokenizer.json with the tokens `used` and those that any needs, and which of the old ids these are, in their
    order: [tokens]. Raises KdcError for a kind of tokenizer that is not known."""
    values = json.loads(text)
    model = values["model"]
    kind = model.get("type") or ("Unigram" if isinstance(model.get("vocab"), list) else "WordPiece")
    if kind not in KINDS:
        raise KdcError(
            f"--trim-vocabulary: a tokenizer of kind {kind} cannot be cut", f"it can be of {', '.join(KINDS)}"
        )
    by_id = _by_id(model)
    added = {token["id"]: token["content"] for token in values.get("added_tokens", ())}
    stays = {*used, *added} | {number for number, token in by_id.items() if _is_sign(token, model)}
    unknown = model.get("unk_token")
    stays |= {number for number, token in by_id.items() if unknown is not None and token == unknown}
    if isinstance(model.get("unk_id"), int):
        stays.add(model["unk_id"])
    if kind == "BPE":
        stays = _with_parts(model, by_id, stays)
    ids = sorted(number for number in stays if number in by_id or number in added)
    new = {old: number for number, old in enumerate(ids)}
    if any(number < max(by_id) for number in added if number not in by_id):
        raise KdcError("--trim-vocabulary: the tokenizer's added tokens lie between its own", "leave it out")
    _renumber(values, by_id, new)
    return json.dumps(values), np.array(ids, np.int64)


def _by_id(model: dict[str, Any]) -> dict[int, str]:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        return {number: row[0] for number, row in enumerate(vocabulary)}
    return {number: token for token, number in vocabulary.items()}


def _is_sign(token: str, model: dict[str, Any]) -> bool:
    """A single sign, inside a word or at its beginning, or a byte."""
    prefix = model.get("continuing_subword_prefix") or ""
    bare = token.removeprefix(prefix) if prefix else token
    is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return len(bare) == 1 or is_byte


def _pair(merge: Any) -> tuple[str, str]:
    first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
    return first, second


def _with_parts(model: dict[str, Any], by_id: dict[int, str], stays: set[int]) -> set[int]:
    """With all that they are merged out of; merges whose parts or result go, go too."""
    ids = {token: number for number, token in by_id.items()}
    prefix = model.get("continuing_subword_prefix") or ""
    out_of: dict[str, list[tuple[str, str]]] = {}
    for merge in model.get("merges", ()):
        first, second = _pair(merge)
        out_of.setdefault(first + second.removeprefix(prefix), []).append((first, second))
    waiting = [by_id[number] for number in stays if number in by_id]
    names: set[str] = set()
    while waiting:
        token = waiting.pop()
        if token not in names:
            names.add(token)
            waiting += [part for pair in out_of.get(token, ()) for part in pair]
    result = {pair: token for token, pairs in out_of.items() for pair in pairs}
    model["merges"] = [merge for merge in model.get("merges", ()) if {*_pair(merge), result[_pair(merge)]} <= names]
    return stays | {ids[token] for token in names if token in ids}


def _renumber(values: dict[str, Any], by_id: dict[int, str], new: dict[int, int]) -> None:
    """Give the tokens that stay their new ids, wherever a tokenizer.json has ids."""
    model = values["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [model["vocab"][old] for old in new if old in by_id]
    else:
        model["vocab"] = {by_id[old]: number for old, number in new.items() if old in by_id}
    if isinstance(model.get("unk_id"), int):
        model["unk_id"] = new[model["unk_id"]]
    for token in values.get("added_tokens", ()):
        token["id"] = new[token["id"]]
    if isinstance(padding := values.get("padding"), dict):
        padding["pad_id"] = new.get(int(padding.get("pad_id", 0)), 0)
    processors = [values.get("post_processor")]
    while processors:
        processor = processors.pop()
        if not isinstance(processor, dict):
            continue
        processors += processor.get("processors", ())
        for special in (processor.get("special_tokens") or {}).values():
            special["ids"] = [new[old] for old in special["ids"]]
        for name in ("cls", "sep"):
            if isinstance(processor.get(name), list):
                processor[name][1] = new[processor[name][1]]


def _with_tokens(network: TextClassifier, ids: NDArray[np.int64], tokenizer: str, pad_id: int) -> TextClassifier:
    """A copy whose table has these rows, that of the padding at `pad_id`."""
    model: Any = copy.deepcopy(network.model)
    table = model.get_input_embeddings()
    rows = table.weight.detach()[torch.from_numpy(ids)].clone()
    padding = None if table.padding_idx is None else pad_id
    smaller = nn.Embedding(len(ids), rows.shape[1], padding_idx=padding, _weight=rows)
    model.set_input_embeddings(smaller)
    if model.config.pad_token_id is not None:
        model.config.pad_token_id = pad_id
    model.config.vocab_size = len(ids)
    return TextClassifier(model, tokenizer).eval()


def _told(before: LoadedModel, after: LoadedModel, validation: Split) -> str:
    rows = [encoded_split(validation, of_texts(model.preprocess)) for model in (before, after)]
    old, new = (of_texts(model.preprocess).vocabulary for model in (before, after))
    right = [int((_logits(model, validation).argmax(1) == validation.labels).sum()) for model in (before, after)]
    longer = sum(len(a.ids) != len(b.ids) for a, b in zip(*rows, strict=True))
    saved = 4 * (before.weights.parameters - after.weights.parameters) / 1e6
    return (
        f"vocabulary trimmed from {old:,} to {new:,} tokens, those of the training texts and single signs: "
        f"{saved:.1f} MB less in fp32; of {len(validation):,} validation texts {right[1]:,} are right, {right[0]:,} "
        f"before, and {longer:,} have another number of tokens"
    )


@torch.no_grad()
def _logits(model: LoadedModel, split: Split) -> NDArray[np.float32]:
    preprocess = of_texts(model.preprocess)
    encoded = encoded_split(split, preprocess)
    whole: list[Any] = [None] * len(encoded)
    for rows in evaluation_batches([len(row.ids) for row in encoded]):
        logits = model.network(*stacked([encoded[row] for row in rows], preprocess).values()).numpy()
        for row, values in zip(rows, logits, strict=True):
            whole[row] = values
    return np.array(whole, np.float32)
