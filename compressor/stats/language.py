"""What a text costs a language model: bits a byte and perplexity, with intervals by document."""

from typing import NamedTuple

import numpy as np

from compressor.schema.accuracy import BitsPerByte
from compressor.stats.intervals import Floats, Interval, Ints

__all__ = ["BOOTSTRAP", "Costs", "bits_difference", "bits_per_byte", "scored_bits"]

BOOTSTRAP = 2000
SEED = 0
PART = 1 << 24
"""Numbers that are drawn together."""


class Costs(NamedTuple):
    """Of each document what its tokens cost: `nats`, the sum of their negative log-likelihoods, float64 [N]; the
    `tokens` that this is a sum over, and the `bytes` of text that they stand for, int64 [N]."""

    nats: Floats
    tokens: Ints
    bytes: Ints


def bits_per_byte(costs: Costs, split: str) -> BitsPerByte:
    """The score of a split. A document counts by its length: sums over all documents are divided, and no mean is taken
    of what each has for itself.

    The intervals are percentiles of a bootstrap over documents (Efron & Tibshirani 1993, ch. 13), seeded, since tokens
    of one document are not independent. Of few documents they are too narrow; of one there is none. Raises ValueError
    where a document has no byte or no token.
    """
    nats, tokens, sizes = costs
    if not len(nats) or (tokens < 1).any() or (sizes < 1).any():
        raise ValueError("every document needs a token and a byte")
    bits = nats.sum() / np.log(2) / sizes.sum()
    limits = _percentiles(nats / np.log(2), sizes)
    per_token = _percentiles(nats, tokens)
    return BitsPerByte(
        split=split,
        n=len(nats),
        tokens=int(tokens.sum()),
        bytes=int(sizes.sum()),
        bits_per_byte=float(bits),
        low=None if limits is None else float(limits[0]),
        high=None if limits is None else float(limits[1]),
        perplexity=_exp(nats.sum() / tokens.sum()),
        perplexity_low=None if per_token is None else _exp(per_token[0]),
        perplexity_high=None if per_token is None else _exp(per_token[1]),
    )


def bits_difference(first: Costs, second: Costs) -> Interval:
    """Bits a byte of one model less those of another on the same documents, paired by document; of a single document
    its interval is infinite. Of a prompt and its completion two tokenizers may count other bytes at the border, so that
    each model has its own. Raises ValueError where the numbers of documents differ."""
    if len(first.nats) != len(second.nats):
        raise ValueError("the two models were not measured on the same documents")
    bits = [(costs.nats / np.log(2), costs.bytes) for costs in (first, second)]
    value = sum(sign * sums.sum() / over.sum() for sign, (sums, over) in zip((1, -1), bits, strict=True))
    limits = _percentiles(*bits[0], minus=bits[1])
    low, high = (-np.inf, np.inf) if limits is None else limits
    return Interval(float(value), float(low), float(high), len(first.nats))


def _percentiles(sums: Floats, over: Ints, minus: tuple[Floats, Ints] | None = None) -> tuple[float, float] | None:
    """The 2.5th and 97.5th percentile of sums [N] / over [N] of documents that are drawn anew, with replacement; less
    the same of `minus`, of the same documents."""
    n = len(over)
    if n < 2:
        return None
    generator = np.random.Generator(np.random.PCG64(SEED))
    ratios = np.empty(BOOTSTRAP)
    at_once = max(1, PART // n)
    for start in range(0, BOOTSTRAP, at_once):
        rows = generator.integers(n, size=(min(at_once, BOOTSTRAP - start), n))
        drawn = sums[rows].sum(1) / over[rows].sum(1)
        if minus is not None:
            drawn -= minus[0][rows].sum(1) / minus[1][rows].sum(1)
        ratios[start : start + len(rows)] = drawn
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def _exp(nats: float) -> float:
    """Its exponential, the largest number at most: infinity is no JSON."""
    return float(np.exp(min(float(nats), 700.0)))


def scored_bits(score: BitsPerByte) -> str:
    """`1.712 bits a byte [1.690–1.735], perplexity 75.2 [72.1–78.4]`; whoever shows it adds n."""
    bits = "" if score.low is None or score.high is None else f" [{score.low:.3f}–{score.high:.3f}]"
    low, high = score.perplexity_low, score.perplexity_high
    perplexity = "" if low is None or high is None else f" [{low:.4g}–{high:.4g}]"
    return f"{score.bits_per_byte:.3f} bits a byte{bits}, perplexity {score.perplexity:.4g}{perplexity}"
