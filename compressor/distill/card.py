"""The teacher card, made of a model and a task, and said to whoever watches; and which classes a model has lost."""

from collections.abc import Collection, Sequence

from compressor.distill.task import BatchModel, Task
from compressor.progress import Progress
from compressor.spec.student import Accuracy, TeacherCard
from compressor.statistics import card_lines, teacher_card

__all__ = ["card_of", "shown", "tell_lost_classes"]

NAMED = 5


def card_of(task: Task, model: BatchModel, class_names: Sequence[str]) -> TeacherCard:
    """The card of `model` from the validation split, the only one that a card may see."""
    return teacher_card(*task.answers_on(model, "validation"), class_names)


def shown(card: TeacherCard, class_names: Sequence[str], progress: Progress, who: str = "the teacher") -> TeacherCard:
    """`card`, once its lines are said, and a warning of the classes that `who` has lost."""
    for line in card_lines(card):
        progress.note(line)
    tell_lost_classes(who, card.accuracy, class_names, progress)
    return card


def tell_lost_classes(
    who: str, score: Accuracy, class_names: Sequence[str], progress: Progress, left_out: Collection[str] = ()
) -> None:
    """Warn of the classes that `who` never or hardly ever answers, which accuracy hides. `left_out`: classes that it
    was not to learn, of which nobody need be told."""
    lost = [one for one in score.lost if class_names[one.number] not in left_out]
    if not lost:
        return
    said = [
        f"class {class_names[one.number]}: {one.right} of {one.n} {score.split} samples right" for one in lost[:NAMED]
    ]
    more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    hidden = f"the accuracy of {score.accuracy:.1%} hides it (balanced {score.balanced:.1%})"
    progress.warn(f"{who} never or hardly ever answers {'; '.join(said)}{more}; {hidden}")
