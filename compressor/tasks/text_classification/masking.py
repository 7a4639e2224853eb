"""Tokens that are hidden, for masked language modelling (Devlin et al. 2019, arXiv 1810.04805, section 3.1).

15 % of a text's tokens are to be told, special ones never. In place of 80 % of these stands the mask, in place of 10 %
any other token, and 10 % stay. Which ones is drawn anew in every epoch, a pure function of the seed, the epoch and the
sample.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.data.randomness import keyed_uniform
from compressor.errors import KdcError
from compressor.schema.preprocess import TextPreprocess
from compressor.tasks.text_classification.tokenization import Encoded, tokenizer_of

__all__ = ["NOT_HIDDEN", "hidden", "require_mask"]

SHARE, MASKED, RANDOM = 0.15, 0.8, 0.1
NOT_HIDDEN = -100
STREAM = 1 << 40
"""Epochs are counted from here, so that nothing else is drawn by the same numbers."""


def require_mask(preprocess: TextPreprocess) -> int:
    """The id of the mask; raises KdcError for a tokenizer without one."""
    mask = tokenizer_of(preprocess).mask
    if mask is None:
        raise KdcError("the tokenizer has no token that hides another ([MASK] or <mask>)", "leave masked_lm out")
    return mask


def hidden(
    encoded: Sequence[Encoded], samples: NDArray[np.int64], preprocess: TextPreprocess, seed: int, epoch: int
) -> tuple[list[Encoded], list[NDArray[np.int64]]]:
    """These samples with tokens hidden; and of each token what it was, where it is to be told, NOT_HIDDEN elsewhere."""
    tokenizer, mask = tokenizer_of(preprocess), require_mask(preprocess)
    ordinary = np.setdiff1d(np.arange(tokenizer.size), sorted(tokenizer.special))
    longest = max(len(sample.ids) for sample in encoded)
    drawn = keyed_uniform(seed, samples, STREAM + epoch, 3 * longest).reshape(len(encoded), longest, 3)
    shown, labels = [], []
    for sample, numbers in zip(encoded, drawn, strict=True):
        chosen, kind, which = numbers[: len(sample.ids)].T
        told = (chosen < SHARE) & (sample.text >= 0)
        ids = sample.ids.copy()
        ids[told & (kind < MASKED)] = mask
        other = told & (kind >= MASKED) & (kind < MASKED + RANDOM)
        ids[other] = ordinary[(which[other] * len(ordinary)).astype(np.int64)]
        shown.append(sample._replace(ids=ids))
        labels.append(np.where(told, sample.ids, NOT_HIDDEN))
    return shown, labels
