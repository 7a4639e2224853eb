"""Heads over the vocabulary, which networks of texts have while something is trained with them, and no longer."""

from collections.abc import Sequence

from torch import nn

from compressor.distill.loop.learner import Term
from compressor.errors import KdcError
from compressor.models import LoadedModel
from compressor.models.features import VOCABULARY, Staged, inner_of
from compressor.models.weights import tensors_sha256
from compressor.progress import Progress
from compressor.schema.views import Views

__all__ = ["give_heads", "head_for_views", "head_sha256", "leave_heads"]

HINT = "kdc teach --teacher hf:ENCODER keeps the head of an encoder that has one; or leave {name} out"


def give_heads(terms: Sequence[Term], student: LoadedModel, teacher: LoadedModel | None, progress: Progress) -> None:
    """Heads for those losses that look at logits over the vocabulary. The teacher has its own; the student its own, or
    one that begins as its teacher's, or a new one: which is said. Raises KdcError where the teacher has none."""
    looking = [term for term in terms if term.row.taps == VOCABULARY]
    if not looking:
        return
    asking = [term.name for term in looking if term.asks_teacher]
    theirs = None if teacher is None else inner_of(teacher.network)
    if teacher is not None and isinstance(theirs, Staged) and asking:
        _require_head(teacher, f"recipe losses, {asking[0]}", asking[0])
    ours = inner_of(student.network)
    if isinstance(ours, Staged):
        which = ours.give_vocabulary(theirs if isinstance(theirs, Staged) else None, drawn=True)
        if which:
            progress.note(f"the student's masked-LM head: {which}; it is trained along, and is no part of the student")


def _require_head(teacher: LoadedModel, where: str, name: str) -> None:
    """Have the teacher's head; raises KdcError where it has none. `name`: what asks for it, `where` that stands."""
    network = inner_of(teacher.network)
    assert isinstance(network, Staged)
    try:
        network.give_vocabulary(None, drawn=False)
    except KdcError as error:
        raise KdcError(
            f"{where}: the teacher {teacher.weights.source} has no masked-LM head: {error.message}",
            HINT.format(name=name),
        ) from None


def head_for_views(views: Views, teacher: LoadedModel | None) -> None:
    """Have the teacher's head where views are made by it; raises KdcError where it has none. Who has no such network is
    told by who makes the views."""
    if views.word_replacement and teacher is not None and isinstance(inner_of(teacher.network), Staged):
        _require_head(teacher, "recipe views.word_replacement", "word_replacement")


def head_sha256(terms: Sequence[Term], views: Views, teacher: LoadedModel | None) -> str | None:
    """Of the teacher with its head, where that is asked; None where it is not."""
    asking = any(term.row.taps == VOCABULARY and term.asks_teacher for term in terms) or views.word_replacement > 0
    return tensors_sha256(inner_of(teacher.network).state_dict()) if asking and teacher is not None else None


def leave_heads(network: nn.Module, *, keep: bool) -> None:
    """The network as it ships. `keep`: of a teacher that is taught, what its head has learned is kept."""
    inner = inner_of(network)
    if isinstance(inner, Staged):
        inner.leave_vocabulary(keep=keep)
