"""A score, whatever it is of: as people read it, as history.jsonl keeps it, and what an epoch is chosen by."""

from compressor.schema.accuracy import Accuracy, Score
from compressor.schema.recipe import KeepBy
from compressor.stats.accuracy import scored
from compressor.stats.language import scored_bits

__all__ = ["figures", "goodness", "in_short", "measured_in", "scored_any"]


def measured_in(score: Score) -> str:
    """What its figure is called."""
    return "accuracy" if isinstance(score, Accuracy) else "bits a byte"


def scored_any(score: Score) -> str:
    """With its intervals; whoever shows it adds n."""
    return scored(score) if isinstance(score, Accuracy) else scored_bits(score)


def goodness(score: Score, by: KeepBy) -> float | None:
    """The figure that the kept epoch is the best by, the larger the better; None where it is not defined: an AUC of
    answers that are not finite."""
    if isinstance(score, Accuracy):
        figures: dict[KeepBy, float | None] = {
            "accuracy": score.accuracy, "balanced": score.balanced, "auc": score.auc
        }  # fmt: skip
    else:
        figures = {"bits_per_byte": -score.bits_per_byte}
    return figures[by]


def figures(score: Score) -> dict[str, float | int]:
    """What history.jsonl has of an epoch; the intervals stand in student.json, of the one that is kept."""
    if not isinstance(score, Accuracy):
        return {"bits_per_byte": score.bits_per_byte, "perplexity": score.perplexity, "n": score.n}
    area = {} if score.auc is None else {"auc": score.auc}
    return {"accuracy": score.accuracy, "balanced": score.balanced, **area, "n": score.n}


def in_short(row: dict[str, float], *, whole: bool = True) -> str:
    """`figures` for people; not `whole`: the first of them alone."""
    if "bits_per_byte" in row:
        first, rest = f"{row['bits_per_byte']:.3f} bits a byte", f", perplexity {row['perplexity']:.4g}"
    else:
        area = f", AUC {row['auc']:.4f}" if "auc" in row else ""
        first, rest = f"{row['accuracy']:.2%}", f", balanced {row['balanced']:.2%}{area}"
    return f"{first}{rest} (n={row['n']})" if whole else first
