"""The teacher card, made of a model and a task, and said to whoever watches; and which classes a model has lost."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from compressor.progress import Progress
from compressor.schema.accuracy import Accuracy, Score
from compressor.schema.student import TeacherCard
from compressor.stats import card_lines, teacher_card
from compressor.tasks.base import BatchModel, Feed

__all__ = ["Measured", "measured_on", "shown", "tell_lost_classes"]

NAMED = 5


class Measured(NamedTuple):
    """What a model is like on validation: its score, and the card of one whose samples have classes. Both None where it
    was not measured."""

    score: Score | None
    card: TeacherCard | None


def measured_on(task: Feed, model: BatchModel, class_names: Sequence[str]) -> Measured:
    """`model` on the validation split, the only one that a card may see."""
    if not class_names:
        return Measured(task.evaluate(model, "validation"), None)
    card = teacher_card(*task.answers_on(model, "validation"), class_names)
    return Measured(card.accuracy, card)


def shown(
    card: TeacherCard, class_names: Sequence[str], progress: Progress, subject: str = "the teacher"
) -> TeacherCard:
    """`card`, once its lines are said, and a warning of the classes that `subject` has lost."""
    for line in card_lines(card):
        progress.note(line)
    tell_lost_classes(subject, [card.accuracy], class_names, progress)
    return card


def tell_lost_classes(
    subject: str,
    scores: Sequence[Accuracy],
    class_names: Sequence[str],
    progress: Progress,
    left_out: Collection[str] = (),
) -> None:
    """Warn, once for all `scores`, of the classes that `subject` never or hardly ever answers, which accuracy does not
    show. `left_out`: classes that it was not to learn, of which nobody need be told."""
    counts: dict[str, list[str]] = {}
    for score in scores:
        for lost_class in score.lost:
            counted = f"{lost_class.right} of {lost_class.n} {score.split} samples right"
            counts.setdefault(class_names[lost_class.number], []).append(counted)
    lost = [f"class {name}: {', '.join(counted)}" for name, counted in counts.items() if name not in left_out]
    if not lost:
        return
    suffix = f"; and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    means = ", ".join(f"{score.accuracy:.1%} on {score.split} (balanced {score.balanced:.1%})" for score in scores)
    progress.warn(
        f"{subject} never or hardly ever answers {'; '.join(lost[:NAMED])}{suffix}. Accuracy alone does not show it: "
        f"{means}"
    )
