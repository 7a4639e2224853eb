"""What a language model's bundle holds beside the models: its splits as blocks of tokens, what these cost in torch, and
prompts to answer."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.models.features import inner_of
from compressor.models.loaded import LoadedModel
from compressor.modes import freeze
from compressor.progress import Progress
from compressor.schema.language.bundle import Answers, Corpus
from compressor.schema.preprocess import LanguagePreprocess
from compressor.schema.profile import Generation
from compressor.stats.language import Costs, document_costs
from compressor.tasks.causal_lm.encoding import Encoded, blocks_of, encoded_split
from compressor.tasks.causal_lm.feed import EVAL_NUMBERS, evaluation_batches
from compressor.tasks.causal_lm.models.network import CausalLm, position_limit
from compressor.tasks.causal_lm.shipping import transformers_folder
from compressor.tasks.causal_lm.tokenizer import of_documents

__all__ = [
    "costs_in_torch",
    "limit_of",
    "require_room",
    "score_batch",
    "transformers_folder",
    "write_corpus",
    "write_prompts",
]

MOST_PROMPTS = 16


class Flat(NamedTuple):
    """The blocks of a split one behind the other: `ids` int32 [T], from where to where each block is in `starts` int64
    [blocks + 1], and of which document each token that counts is, int32 [T], -1 where it does not; `bytes` int64 [N] of
    the documents."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    documents: NDArray[np.int32]
    bytes: NDArray[np.int64]


def flat(samples: Sequence[Encoded], most: int) -> Flat:
    """Blocks as a training cuts them, those in which a token counts for a score."""
    ids, documents, lengths = [], [], [0]
    for number, start, stop in blocks_of(samples, most):
        sample = samples[number]
        counts = sample.scored[start + 1 : stop + 1]
        if counts.any():
            ids.append(sample.ids[start : stop + 1])
            documents.append(np.concatenate([[-1], np.where(counts, number, -1)]).astype(np.int32))
            lengths.append(stop + 1 - start)
    sizes = np.array([sample.bytes for sample in samples], np.int64)
    return Flat(np.concatenate(ids), np.cumsum(lengths), np.concatenate(documents), sizes)


def log_probabilities(model: LoadedModel, blocks: Flat, progress: Progress, doing: str) -> NDArray[np.float32]:
    """The natural log-probability of each token given those before it in its block, float32 [T], on the CPU; 0 for the
    first of a block."""
    network, preprocess = freeze(model.network).cpu(), of_documents(model.preprocess)
    told = np.zeros(len(blocks.ids), np.float32)
    lengths = [int(length) - 1 for length in np.diff(blocks.starts)]
    batches = evaluation_batches(lengths, preprocess.vocabulary)
    with torch.inference_mode():
        for rows in progress.track(batches, len(batches), doing):
            width = max(lengths[row] for row in rows)
            ids = np.full((len(rows), width + 1), preprocess.pad_id, np.int64)
            for at, row in enumerate(rows):
                ids[at, : lengths[row] + 1] = blocks.ids[blocks.starts[row] : blocks.starts[row + 1]]
            mask = (np.arange(width) < np.array([[lengths[row]] for row in rows])).astype(np.int64)
            given = torch.from_numpy(ids)
            logits = network(given[:, :-1], torch.from_numpy(mask))
            nats = F.cross_entropy(logits.float().transpose(1, 2), given[:, 1:], reduction="none").numpy()
            for at, row in enumerate(rows):
                told[blocks.starts[row] + 1 : blocks.starts[row + 1]] = -nats[at, : lengths[row]]
    if not np.isfinite(told).all():
        raise KdcError(f"{doing}: {model.weights.source} gives a token no probability that is a finite number")
    return told


def write_corpus(model: LoadedModel, data: Dataset, split: str, root: Path, progress: Progress) -> Corpus:
    """Write a split as `model` reads it into the bundle in `root`, with what its tokens cost in torch."""
    documents: Split = getattr(data, split)
    preprocess = of_documents(model.preprocess)
    blocks = flat(encoded_split(documents, preprocess), preprocess.max_length)
    scores = log_probabilities(model, blocks, progress, f"the student in torch on {split}")
    names = {kind: f"eval/{split}{kind}" for kind in (".npz", "_documents.npy", "_bytes.npy", "_torch.npy")}
    np.savez(root / names[".npz"], ids=blocks.ids, starts=blocks.starts)
    np.save(root / names["_documents.npy"], blocks.documents)
    np.save(root / names["_bytes.npy"], blocks.bytes)
    np.save(root / names["_torch.npy"], scores)
    return Corpus(
        split="test" if split == "test" else "validation",
        n=len(blocks.bytes),
        tokens=len(blocks.ids),
        blocks=names[".npz"],
        documents=names["_documents.npy"],
        bytes=names["_bytes.npy"],
        torch=names["_torch.npy"],
        contents=hashlib.sha256(documents.contents.astype("<u8").tobytes()).hexdigest(),
    )


def costs_in_torch(model: LoadedModel, split: Split, progress: Progress) -> Costs:
    """What each document costs a teacher, which may read them by another tokenizer."""
    preprocess = of_documents(model.preprocess)
    blocks = flat(encoded_split(split, preprocess), preprocess.max_length)
    scores = log_probabilities(model, blocks, progress, "the teacher in torch on test")
    return document_costs(scores.astype(np.float64), blocks.documents.astype(np.int64), blocks.bytes)


def write_prompts(model: LoadedModel, data: Dataset, asked: Generation, root: Path) -> Answers:
    """Write prompts, each the start of the validation split's text from another place on, to be answered. Raises
    KdcError where the split is shorter than one."""
    preprocess = of_documents(model.preprocess)
    ids = np.concatenate([sample.ids for sample in encoded_split(data.validation, preprocess)])
    width = asked.prompt_tokens
    if len(ids) < width:
        raise KdcError(
            f"generation.prompt_tokens {width}: the validation split has {len(ids)} tokens",
            f"--set generation.prompt_tokens={len(ids)}",
        )
    count = min(MOST_PROMPTS, len(ids) // width)
    prompts = [ids[start : start + width].tolist() for start in range(0, count * width, width)]
    (root / "eval/prompts.json").write_text(json.dumps(prompts) + "\n", encoding="utf-8")
    return Answers(prompts="eval/prompts.json", count=count, prompt_tokens=width, new_tokens=asked.new_tokens)


def limit_of(model: LoadedModel) -> int | None:
    """The most tokens that the model takes; None where nothing says so."""
    network = inner_of(model.network)
    assert isinstance(network, CausalLm)
    return position_limit(network.model)


def require_room(model: LoadedModel, asked: Generation) -> None:
    """Raise KdcError where a prompt and its answer are more than the model takes."""
    limit, wanted = limit_of(model), asked.prompt_tokens + asked.new_tokens
    if limit is not None and wanted > limit:
        half = limit // 2
        raise KdcError(
            f"the profile's generation asks for {asked.prompt_tokens} + {asked.new_tokens} tokens (prompt_tokens, "
            f"new_tokens), and the model takes {limit} at most",
            f"--set generation.prompt_tokens={half} --set generation.new_tokens={half}",
        )


def score_batch(preprocess: LanguagePreprocess) -> int:
    """Blocks whose logits fit into memory together."""
    return max(1, EVAL_NUMBERS // (preprocess.vocabulary * preprocess.max_length))
