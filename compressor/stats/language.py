"""What a text costs a language model: bits a byte and perplexity, with intervals by document."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from compressor.schema.accuracy import BitsPerByte
from compressor.stats.intervals import Floats, Interval, Ints

__all__ = [
    "BOOTSTRAP",
    "Costs",
    "bits_difference",
    "bits_per_byte",
    "bits_ratio",
    "document_costs",
    "scored_bits",
]

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
    limits = _percentiles(len(nats), lambda rows: _share(nats / np.log(2), sizes, rows))
    per_token = _percentiles(len(nats), lambda rows: _share(nats, tokens, rows))
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
    (sums, over), (others, of_others) = bits
    limits = _percentiles(len(sums), lambda rows: _share(sums, over, rows) - _share(others, of_others, rows))
    low, high = (-np.inf, np.inf) if limits is None else limits
    return Interval(float(value), float(low), float(high), len(first.nats))


def bits_ratio(above: Costs, below: Costs) -> Interval:
    """Bits a byte of one model over those of another, as `bits_difference`; of a single document the interval is 0 to
    infinite. Raises ValueError where the numbers of documents differ, or the text costs the other nothing."""
    if len(above.nats) != len(below.nats):
        raise ValueError("the two models were not measured on the same documents")
    if not (below.nats > 0).all():
        raise ValueError("a ratio needs documents that cost something")
    first, second = ((costs.nats, costs.bytes) for costs in (above, below))
    value = _share(*first, slice(None)) / _share(*second, slice(None))
    limits = _percentiles(len(above.nats), lambda rows: _share(*first, rows) / _share(*second, rows))
    low, high = (0.0, np.inf) if limits is None else limits
    return Interval(float(value), float(low), float(high), len(above.nats))


def document_costs(log_probabilities: Floats, documents: Ints, sizes: Ints) -> Costs:
    """What each document costs, of the natural log-probability of each token [T], of which document it is, -1 where it
    does not count [T], and each document's bytes [N]. Raises ValueError where a token that counts has none."""
    counts = documents >= 0
    nats = -log_probabilities[counts].astype(np.float64)
    if not np.isfinite(nats).all():
        raise ValueError("a token's log-probability is no finite number")
    of = documents[counts]
    return Costs(
        np.bincount(of, nats, len(sizes)).astype(np.float64),
        np.bincount(of, minlength=len(sizes)).astype(np.int64),
        sizes.astype(np.int64),
    )


def _share(sums: Floats, over: Ints, rows: Any) -> Any:
    """Sums over documents, divided; of documents that were drawn anew, [K, N] -> [K]."""
    return sums[rows].sum(-1) / over[rows].sum(-1)


def _percentiles(n: int, statistic: Callable[[Ints], Any]) -> tuple[float, float] | None:
    """The 2.5th and 97.5th percentile of what `statistic` makes of n documents that are drawn anew, with replacement:
    their numbers [K, n] -> [K]."""
    if n < 2:
        return None
    generator = np.random.Generator(np.random.PCG64(SEED))
    values = np.empty(BOOTSTRAP)
    at_once = max(1, PART // n)
    for start in range(0, BOOTSTRAP, at_once):
        rows = generator.integers(n, size=(min(at_once, BOOTSTRAP - start), n))
        values[start : start + len(rows)] = statistic(rows)
    low, high = np.percentile(values, [2.5, 97.5])
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
