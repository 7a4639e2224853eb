"""The teacher card: what a teacher's answers to held-out samples are like, and what that means for distilling them.

Of the validation split alone, never of the test split: the temperature is chosen on it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.schema.predictions import Kind
from compressor.schema.student import Confusion, Softened, TeacherCard
from compressor.stats.accuracy import accuracy_of, scored, top1
from compressor.stats.intervals import Floats, Ints
from compressor.stats.softmax import log_softmax

__all__ = ["BINS", "TEMPERATURES", "calibration_error", "card_lines", "teacher_card"]

BINS = 15
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)
CONFUSIONS = 5

SOFT = 0.75
"""The suggested temperature is the lowest that leaves the top class no more than this, in the mean."""

FEWEST_OF_CLASS = 5
FEW = 1000
"""Samples below which the calibration error looks larger than it is (Roelofs et al. 2022, arXiv 2012.08668)."""

ROWS = 8192
"""Samples that are softened at a time, for memory."""


def teacher_card(
    logits: NDArray[Any],
    labels: Ints,
    class_names: Sequence[str],
    split: str = "validation",
    *,
    answers: Kind = "logits",
    zeros: bool = False,
) -> TeacherCard:
    """The card of answers [N, C], logits or log-probabilities, against labels [N].

    `answers`: what they were made of. Of bare labels only accuracy and confusions can be told; of the top k not how far
    the wrong logits lie apart, since nobody knows how the mass of the rest lay. Nor with `zeros`: where some
    probabilities are 0, and so their logarithms are no more than a placeholder.

    **Evenness** of the wrong logits, whose differences are what teaches (Müller et al. 2019, arXiv 1906.02629): for
    each class with at least 5 right answers the mean over these of the standard deviation of the wrong logits / (the
    right logit - the mean of the wrong ones); then the mean over the half of the classes where it is lowest. It is a
    figure and no more: small networks and mixup make it low as label smoothing does, so nothing is concluded from it.

    **Suggested temperature**: the lowest of 1, 2, 4, 8, 20 at which the top class has a probability of at most 0.75 in
    the mean, so that a quarter of the mass tells of the other classes.

    Raises KdcError where no sample has finite logits, and ValueError where N is 0.
    """
    accuracy = accuracy_of(logits, labels, split)
    finite = np.isfinite(logits).all(axis=1)
    if not finite.any():
        raise KdcError(f"none of the teacher's answers to the {len(labels)} samples of {split} is finite")
    confused = _confused(top1(logits), labels, class_names)
    common = {"accuracy": accuracy, "not_finite": int((~finite).sum()), "confused": confused}
    if answers == "labels":
        why = "bare labels hold nothing that a higher one could bring to light"
        nothing = dict.fromkeys(("calibration_error", "evenness"))
        return TeacherCard.model_validate({**common, **nothing, "softened": (), "temperature": 1.0, "why": why})
    logits, labels = logits[finite], labels[finite]
    softened = tuple(_softened(logits, temperature) for temperature in TEMPERATURES)
    evenness = None if answers == "top-k" or zeros else _evenness(logits, labels)
    temperature, why = _suggested(softened)
    soft_figures = {
        "calibration_error": calibration_error(logits, labels),
        "softened": softened,
        "evenness": evenness,
        "temperature": temperature,
        "why": why,
    }
    return TeacherCard.model_validate({**common, **soft_figures})


def calibration_error(logits: NDArray[Any], labels: Ints, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3) of finite logits [N, C]: samples by
    the confidence of their top class in bins ((m-1)/M, m/M]; the mean over samples of |accuracy - confidence| of their
    bin. Raises ValueError where N is 0."""
    if not len(labels):
        raise ValueError("no samples")
    confidence = _confidence(logits)
    right = logits.argmax(axis=1) == labels
    of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(of, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def card_lines(card: TeacherCard) -> Iterator[str]:
    """The card for people, a line each."""
    score = card.accuracy
    yield f"teacher card, from {score.split} (n={score.n}): accuracy {scored(score)}"
    if card.not_finite:
        yield f"  {card.not_finite} answers are not finite numbers: they count as wrong"
    if card.calibration_error is not None:
        biased = f"; below {FEW:,} samples it looks larger than it is" if score.n < FEW else ""
        yield f"  expected calibration error {card.calibration_error:.3f} ({BINS} bins, n={score.n}{biased})"
    if card.softened:
        rows = "; ".join(f"T={row.temperature:g} {row.confidence:.2f}, {row.entropy:.2f}" for row in card.softened)
        yield f"  softened (top class's mean probability, entropy in nats): {rows}"
    if card.confused:
        rows = ", ".join(f"{row.label} as {row.taken_for} {row.count} of {row.n}" for row in card.confused)
        yield f"  most often mistaken: {rows}"
    if card.evenness is not None:
        yield f"  wrong logits apart by {card.evenness:.2f} of the right one's lead"
    yield f"  suggested temperature {card.temperature:g}: {card.why}"


def _softened(logits: NDArray[Any], temperature: float) -> Softened:
    entropy = confidence = 0.0
    for start in range(0, len(logits), ROWS):
        logs = log_softmax(logits[start : start + ROWS], temperature)
        entropy -= float((np.exp(logs) * logs).sum())
        confidence += float(np.exp(logs.max(axis=1)).sum())
    return Softened(temperature=temperature, entropy=entropy / len(logits), confidence=confidence / len(logits))


def _confidence(logits: NDArray[Any]) -> Floats:
    """The probability of the top class [N]."""
    starts = range(0, len(logits), ROWS)
    return np.concatenate([np.exp(log_softmax(logits[start : start + ROWS]).max(axis=1)) for start in starts])


def _confused(predictions: Ints, labels: Ints, class_names: Sequence[str]) -> tuple[Confusion, ...]:
    """The most frequent mistakes; of equally frequent ones the first by class."""
    classes = len(class_names)
    wrong = (predictions != labels) & (predictions >= 0)
    pairs, counts = np.unique(labels[wrong] * classes + predictions[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CONFUSIONS]
    of = np.bincount(labels, minlength=classes)
    return tuple(
        Confusion(
            label=class_names[pair // classes], taken_for=class_names[pair % classes], count=count,
            n=int(of[pair // classes]),
        )
        for pair, count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    )  # fmt: skip


def _evenness(logits: NDArray[Any], labels: Ints) -> float | None:
    """See `teacher_card`; None where there are fewer than three classes, or too few right answers of each."""
    if logits.shape[1] < 3:
        return None
    right = logits.argmax(axis=1) == labels
    ratios = []
    for number in range(logits.shape[1]):
        rows = np.asarray(logits[right & (labels == number)], np.float64)
        wrong = np.delete(rows, number, axis=1)
        lead = rows[:, number] - wrong.mean(axis=1)
        if len(rows) >= FEWEST_OF_CLASS and (lead > 0).all():
            ratios.append(float((wrong.std(axis=1, ddof=1) / lead).mean()))
    return float(np.mean(sorted(ratios)[: (len(ratios) + 1) // 2])) if ratios else None


def _suggested(softened: Sequence[Softened]) -> tuple[float, str]:
    soft = next((row for row in softened if row.confidence <= SOFT), softened[-1])
    if soft.confidence > SOFT:
        return (
            soft.temperature,
            f"the highest one tried; even there the top class has {soft.confidence:.2f}",
        )
    least = f"the lowest of {', '.join(f'{row.temperature:g}' for row in softened)}"
    return soft.temperature, f"{least} that leaves the top class at most {SOFT} in the mean; a rule of thumb"
