"""The teacher card, made of a model and a task, and said to whoever watches."""

from collections.abc import Sequence

from compressor.distill.task import BatchModel, Task
from compressor.progress import Progress
from compressor.spec.student import TeacherCard
from compressor.statistics import card_lines, teacher_card

__all__ = ["card_of", "shown"]


def card_of(task: Task, model: BatchModel, class_names: Sequence[str]) -> TeacherCard:
    """The card of `model` from the validation split, the only one that a card may see."""
    return teacher_card(*task.answers_on(model, "validation"), class_names)


def shown(card: TeacherCard, progress: Progress) -> TeacherCard:
    """`card`, once its lines are said, and a warning where there are signs of label smoothing."""
    for line in card_lines(card):
        progress.note(line)
    if card.smoothed:
        progress.warn(
            "the teacher seems to be trained with label smoothing, which takes away what its wrong answers would teach "
            "(Müller et al. 2019, disputed): without it, it may teach more"
        )
    return card
