"""`kdc predict` with a language model that runs here: its completions, one after the other."""

import importlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from compressor.completions.asking import AGAIN, Asking, matched, tell
from compressor.completions.pool import Unanswered
from compressor.data.completion_files import growing, require_jsonl
from compressor.data.prompts import read_prompts
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.schema.completions import Completion, Completions, Question
from compressor.schema.provenance import NOBODYS, UNKNOWN
from compressor.schema.weights import Weights, joint, joint_terms
from compressor.tasks.table import TASKS

__all__ = ["complete_here"]


def complete_here(
    teacher: str, data: str, out: Path, asking: Asking, task: str, *, progress: Progress, column: str | None = None,
    resume: bool = False,
) -> Completions:  # fmt: skip
    """Let the model `teacher` answer what the table `out` lacks, and append each answer. The same question has the same
    answer, so that what is resumed ends in the same rows.

    Args:
        teacher: a reference that `models.load_model` takes.
        task: whose model it is.
        data, out, asking, column, resume: see `asking.complete`; of `asking` what is about an endpoint is not read.

    Raises:
        KdcError: for what is wrong with these.
    """
    require_jsonl(out, "--out")
    prompts = read_prompts(data, column)
    from compressor.distill.host.device import set_up
    from compressor.models import load_model
    from compressor.models.lineage import last_part, stated, told

    (model,) = told(progress, load_model(teacher, task=task))
    weights = stated(model.weights, asking.licence, asking.terms)
    name = f"{last_part(teacher)} ({weights.sha256[:12]})"  # other weights under the same name are another model
    questions = asking.questions(prompts.texts, name)
    answer: Callable[[Question], Completion] = importlib.import_module(TASKS[task].completes).answerer(
        model, set_up().device
    )
    terms = _terms_of(weights, asking.licence)
    with growing(out, resume=resume) as table:
        there = matched(table.rows, questions, terms, name)
        missing = [question for question in questions if question.key not in there]
        tell(prompts, questions, missing, len(table.rows) - len(there), progress)
        unanswered: Counter[str] = Counter()
        done = 0
        try:
            for question in progress.track(missing, len(missing), "the teacher's answers"):
                result = _answered(answer, question, keeps=asking.logprobs)
                if isinstance(result, Unanswered):
                    unanswered[result.why] += 1
                else:
                    table.append(result.model_copy(update=terms))
                    done += 1
        except KeyboardInterrupt:
            progress.warn(f"stopped: {done:,} of {len(missing):,} were answered and are kept; {AGAIN}")
            raise
        if missing and unanswered.total() == len(missing) and not table.rows:
            raise KdcError(f"no prompt has an answer: {next(iter(unanswered))}", "other prompts")
        for why, count in unanswered.items():
            progress.warn(f"{count:,} questions have no answer that can be used: {why}")
        return Completions(
            out=str(out), teacher=teacher, asked=len(missing) - sum(unanswered.values()), before=len(there),
            others=len(table.rows) - len(there), unanswered=dict(unanswered), licence=terms["licence"],
            terms=terms["terms"],
        )  # fmt: skip


def _terms_of(weights: Weights, licence: str | None) -> dict[str, str]:
    """Under which a model's answers are used: also under what holds for all that it was made of. Where somebody states
    a `licence`, what is not known of these says no more."""
    licences = [ancestor.licence for ancestor in weights.provenance]
    ours = [name for name in licences if not name.startswith(NOBODYS) and (name != UNKNOWN or licence is None)]
    return {"licence": joint(ours or licences), "terms": joint_terms(row.terms for row in weights.provenance)}


def _answered(answer: Callable[[Question], Completion], question: Question, *, keeps: bool) -> Completion | Unanswered:
    try:
        completion = answer(question)
    except KdcError as error:
        return Unanswered(question, error.message)
    return completion if keeps else completion.model_copy(update={"tokens": None, "logprobs": None})
