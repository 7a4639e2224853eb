"""How many tokens of a text a model is shown: what is stated, or what the training texts need."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel
from compressor.progress import Progress
from compressor.schema.preprocess import TextPreprocess
from compressor.tasks.text_classification.opening import Texts
from compressor.tasks.text_classification.tokenization import of_texts, tokenizer_of

__all__ = ["MOST", "fitted", "is_pair", "refuse_pairs", "require_texts", "texts_of"]

MOST = 128
"""Tokens that are shown at most, where nobody states more."""
STEP = 16
COVERED = 95
"""Percent of the training texts that are shown whole."""
MOST_UNKNOWN, MANY_UNKNOWN = 0.5, 0.1


def texts_of(split: Split) -> list[Texts]:
    """All samples of a split."""
    return [split.read(row) for row in range(len(split))]


def is_pair(split: Split) -> bool:
    return len(split.read(0)) > 1


def fitted(model: LoadedModel, data: Dataset, max_length: int | None, limit: int, progress: Progress) -> LoadedModel:
    """`model` for these data: pairs or single texts, and of how many tokens, `limit` at most. `max_length`: as stated;
    None: as many as 95 % of the training texts have, rounded up to 16, and 128 at most. A run keeps what it has."""
    preprocess = of_texts(model.preprocess)
    if max_length is not None and max_length > limit:
        source = model.weights.source
        raise KdcError(f"max length {max_length}: {source} takes {limit} tokens at most", f"--max-length {limit}")
    pair = is_pair(data.train)
    require_texts(preprocess, data.train, model.weights.source)
    lengths = _lengths(preprocess, data, model.weights.source, progress)
    if preprocess.pair is None:
        changes: dict[str, object] = {"pair": pair}
        if not pair:  # nothing to tell apart, so that what ships need not be given it
            changes["token_types"] = 0
        covered = math.ceil(np.percentile(lengths, COVERED))
        why = "as stated"
        if max_length is None:
            changes["max_length"] = min(STEP * math.ceil(covered / STEP), MOST, limit)
            why = f"{COVERED} % of the training texts have {covered} or fewer"
        preprocess = preprocess.model_copy(update=changes)
    else:
        why = f"as {model.weights.source} has it"
    cut = int((lengths > preprocess.max_length).sum())
    called = "training texts" if (data.train.labels >= 0).any() else "texts without labels"
    progress.note(f"max length {preprocess.max_length} tokens ({why}): {cut:,} of {len(lengths):,} {called} are cut")
    return replace(model, preprocess=preprocess)


def require_texts(preprocess: TextPreprocess, split: Split, source: str) -> None:
    """Raise KdcError where a model that was taught single texts is to read pairs, or the other way round."""
    if preprocess.pair is not None and preprocess.pair != is_pair(split):
        was, now = ("pairs of texts", "single texts") if preprocess.pair else ("single texts", "pairs of texts")
        raise KdcError(f"{source} reads {was}, and the data has {now}", "--text-column NAME, twice for a pair")


def refuse_pairs(split: Split, source: str) -> None:
    """Raise KdcError where a model that reads the mean of all tokens is to read pairs."""
    if is_pair(split):
        raise KdcError(
            f"{source} reads the mean of all tokens, which does not tell the two texts of a pair apart",
            "--student layers:N; or one text: --text-column NAME",
        )


def _lengths(preprocess: TextPreprocess, data: Dataset, source: str, progress: Progress) -> NDArray[np.int64]:
    """Tokens of each training text, special ones included; raises KdcError where the tokenizer knows hardly any."""
    tokenizer = tokenizer_of(preprocess)
    encoded = tokenizer.encode(texts_of(data.train))
    if nothing := [row for row, sample in enumerate(encoded) if not len(sample.ids)]:
        progress.warn(
            f"{len(nothing):,} training texts have no token, by the tokenizer of {source}, so that nothing is learned "
            f"from them, e.g. {data.train.ids[nothing[0]]}"
        )
    if tokenizer.unknown is not None:
        ids = np.concatenate([row.ids for row in encoded])
        special = len(encoded) * sum(map(len, tokenizer.around))
        share = float((ids == tokenizer.unknown).sum() / max(1, len(ids) - special))
        told = f"{share:.0%} of the tokens of the training texts are unknown to the tokenizer of {source}"
        if share > MOST_UNKNOWN:
            raise KdcError(
                f"{told}: it is of another language, or belongs to another model", "take a model that knows these texts"
            )
        if share > MANY_UNKNOWN:
            progress.warn(told)
    return np.array([len(row.ids) for row in encoded])
