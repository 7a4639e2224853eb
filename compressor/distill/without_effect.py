"""What a request asks for that would change nothing, or mean nothing."""

from collections.abc import Sequence

from compressor.distill.loop.learner import Term
from compressor.errors import KdcError
from compressor.models.references import NO_MODEL, holds_completions
from compressor.schema.completion_filters import CompletionFilters
from compressor.schema.on_policy import OnPolicy
from compressor.schema.recipe import Ensemble, TeacherAnswers
from compressor.schema.student import Request
from compressor.tasks.table import TASKS

__all__ = ["refuse_unserved", "refuse_without_effect"]

OF_ALL = {"student_logits", "teacher_logits", "peer_logits", "labels"}
"""What a loss on logits is given whatever is learned."""


def refuse_unserved(request: Request, terms: Sequence[Term]) -> None:
    """Raise KdcError for a loss on logits that takes what this training does not give it, and for on-policy steps that
    it cannot take."""
    _refuse_writing(request, terms)
    given = OF_ALL | {*TASKS[request.task].gives}
    for term in terms:
        if term.row.mean_over == "groups" and request.teacher in NO_MODEL:
            raise KdcError(
                f"recipe losses: {term.name} compares the tokens of two models, and --teacher {request.teacher} is "
                "none apart from the student",
                "kd, or another --teacher",
            )
        lacking = [name for name in term.row.needs if name not in given] if term.row.taps is None else []
        if not lacking:
            continue
        able = [task for task, row in TASKS.items() if {*term.row.needs} <= OF_ALL | {*row.gives}]
        raise KdcError(
            f"recipe losses: {term.name} needs {lacking[0]}, which trainings of {request.task} do not give it",
            f"it is for {', '.join(able)}" if able else "leave it out: kd takes all of the teacher's logits",
        )


def _refuse_writing(request: Request, terms: Sequence[Term]) -> None:
    policy, recipe = request.recipe.on_policy, request.recipe
    if policy == OnPolicy():
        return
    if not TASKS[request.task].completes:
        raise KdcError(f"recipe on_policy: a student of {request.task} writes nothing", "leave it out")
    if not policy.share:
        raise KdcError("recipe on_policy: its share is 0, so that the rest of it means nothing", "on_policy.share=0.5")
    asking = [term for term in terms if term.asks_teacher]
    if not asking or request.teacher in NO_MODEL or recipe.peers:
        raise KdcError(
            "recipe on_policy: a teacher scores what the student writes, by a loss that asks it, and here is none",
            "kdc distill --teacher run:DIR or hf:PATH, and kd, reverse_kl or jsd; no peers",
        )
    for term in asking:
        if term.row.mean_over == "groups" or "labels" in term.row.needs:
            raise KdcError(
                f"recipe on_policy: {term.name} takes more than answers to what the student writes",
                "kd, reverse_kl or jsd",
            )


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
    _refuse_of_completions(request, terms)


def _refuse_of_completions(request: Request, terms: Sequence[Term]) -> None:
    teacher = request.teacher
    if not holds_completions(teacher):
        if request.recipe.completions != CompletionFilters():
            raise KdcError(
                "recipe completions says which completions are learned from, and the teacher gives none",
                "--teacher outputs:FILE.jsonl",
            )
        return
    asking = [term.name for term in terms if term.asks_teacher and term.loss.ever]
    if asking:
        raise KdcError(
            f"recipe losses: {asking[0]} asks the teacher, and {teacher} holds what it wrote, and no more",
            "cross_entropy",
        )
