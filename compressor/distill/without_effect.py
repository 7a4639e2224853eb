"""What a request asks for that would change nothing, or mean nothing."""

from collections.abc import Sequence

from compressor.distill.loop.learner import Term
from compressor.errors import KdcError
from compressor.models.references import NO_MODEL
from compressor.schema.recipe import Ensemble, TeacherAnswers
from compressor.schema.student import Request
from compressor.tasks.table import TASKS

__all__ = ["refuse_without_effect"]


def refuse_without_effect(request: Request, terms: Sequence[Term]) -> None:
    """Raise KdcError for what was asked for and would change nothing, or mean nothing."""
    teacher, recipe = request.teacher, request.recipe
    if teacher == "peers" and not recipe.peers:
        hint = f"--set 'peers=[{{student: {TASKS[request.task].named[0]}:NAME}}]', and the loss mutual"
        raise KdcError("--teacher peers: the recipe names none", hint)
    if teacher in NO_MODEL and request.teacher_classes is not None:
        raise KdcError(f"--teacher-classes: --teacher {teacher} has the data's classes", "leave it out")
    if teacher == "peers" and recipe.teacher_answers != TeacherAnswers():
        raise KdcError("recipe teacher_answers: peers answer anew at each step, and whole", "leave it out")
    raw = [term.name for term in terms if term.row.raw_logits]
    if raw and (request.other_teachers or teacher.startswith("specialists:") or recipe.teacher_answers.top_k):
        raise KdcError(f"{raw[0]} takes each logit by itself, and this teacher answers probabilities", "kd")
    if not request.other_teachers and recipe.ensemble != Ensemble():
        raise KdcError("recipe ensemble says how several teachers answer as one, and there is one", "leave it out")
