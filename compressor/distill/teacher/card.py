"""The teacher card, made of a model and a task, and said to whoever watches; and which classes a model has lost."""

from collections.abc import Collection, Sequence

from compressor.progress import Progress
from compressor.schema.student import Accuracy, TeacherCard
from compressor.stats import card_lines, teacher_card
from compressor.tasks.base import BatchModel, Feed

__all__ = ["card_of", "shown", "tell_lost_classes"]

NAMED = 5


def card_of(task: Feed, model: BatchModel, class_names: Sequence[str]) -> TeacherCard:
    """The card of `model` from the validation split, the only one that a card may see."""
    return teacher_card(*task.answers_on(model, "validation"), class_names)


def shown(card: TeacherCard, class_names: Sequence[str], progress: Progress, who: str = "the teacher") -> TeacherCard:
    """`card`, once its lines are said, and a warning of the classes that `who` has lost."""
    for line in card_lines(card):
        progress.note(line)
    tell_lost_classes(who, [card.accuracy], class_names, progress)
    return card


def tell_lost_classes(
    who: str,
    scores: Sequence[Accuracy],
    class_names: Sequence[str],
    progress: Progress,
    left_out: Collection[str] = (),
) -> None:
    """Warn, once for all `scores`, of the classes that `who` never or hardly ever answers, which accuracy does not
    show. `left_out`: classes that it was not to learn, of which nobody need be told."""
    found: dict[str, list[str]] = {}
    for score in scores:
        for one in score.lost:
            counted = f"{one.right} of {one.n} {score.split} samples right"
            found.setdefault(class_names[one.number], []).append(counted)
    lost = [f"class {name}: {', '.join(counted)}" for name, counted in found.items() if name not in left_out]
    if not lost:
        return
    more = f"; and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    shown = ", ".join(f"{one.accuracy:.1%} on {one.split} (balanced {one.balanced:.1%})" for one in scores)
    progress.warn(
        f"{who} never or hardly ever answers {'; '.join(lost[:NAMED])}{more}. Accuracy alone does not show it: {shown}"
    )
