"""`kdc predict` as a function."""

from collections.abc import Sequence
from typing import Any

from compressor.api.call import StrPath, api_call, called_like, listener
from compressor.api.completing import completed, completed_here, is_endpoint, plan_completed, refuse_unfit
from compressor.api.results import CompletionsResult, PredictionsResult
from compressor.api.results_before import CompletionPlanResult
from compressor.api.task import task_asked
from compressor.api.values import optional_path, path_of, text_of
from compressor.errors import KdcError
from compressor.progress import Progress

__all__ = ["plan_predict", "predict"]


@api_call
def predict(
    *,
    teacher: str,
    data: str,
    out: StrPath,
    task: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    top_k: int | None = None,
    labels_only: bool = False,
    teacher_classes: StrPath | None = None,
    unlabelled: str | None = None,
    pixel_range: tuple[float, float] | None = None,
    skip_bad: bool = False,
    licence: str | None = None,
    terms: str | None = None,
    mode: str = "chat",
    temperature: float = 0.0,
    max_tokens: int = 512,
    samples: int = 1,
    seed: int | None = None,
    logprobs: bool = False,
    key_variable: str | None = None,
    allow_http: bool = False,
    concurrency: int = 4,
    timeout: float = 120.0,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> PredictionsResult | CompletionsResult:
    """Write a teacher's answers into a table: to all samples, or of a language model to prompts.

    Args:
        teacher: the model that answers, e.g. "timm:NAME", "run:DIR" or "specialists:DIR": log-probabilities of all
            classes, by sample id. Or completions: a causal language model, "hf:PATH" or "run:DIR", or "api:URL#MODEL",
            an endpoint as OpenAI's.
        data: see `teach`; for completions a prompt a row, "jsonl:FILE" or "csv:FILE".
        out: the table, .csv or .parquet, of completions .jsonl; the result's `reference` names it as a teacher.
        top_k: only so many of the most probable classes of each sample, and the rest's mass.
        labels_only: only the most probable class of each sample.
        task, text_column, label_column: see `teach`; `text_column`: of prompts, too.
        teacher_classes, unlabelled: see `distill`.
        pixel_range: black and white of deep images, as `pixel_range` in a recipe; runs know their own.
        skip_bad: leave out images that cannot be read.
        licence, terms: under which the teacher's answers are used, where its files do not say it.
        mode: "chat": a prompt is a user's message; "text": the model goes on where it ends.
        temperature: 0 takes the most probable token at each step.
        max_tokens: the most of an answer.
        samples: answers a prompt.
        seed: of what is drawn; the second sample has the next one.
        logprobs: also keep the tokens' log-probabilities.
        key_variable: the environment variable that holds the key; None: OPENAI_API_KEY.
        allow_http: also send to another machine what is not encrypted.
        concurrency: questions on their way at a time.
        timeout: for an answer, seconds.
        resume: go on with a table of completions: what it holds is not asked again.
        overwrite: replace the file.
        progress: see `compressor.api`.

    Raises:
        KdcError: see `teach`.
    """
    given = locals()
    heard, table = listener(progress), path_of(out, "--out")
    teacher, data = text_of(teacher, "--teacher"), text_of(data, "--data")
    if is_endpoint(teacher):
        refuse_unfit(given, "endpoint")
        return completed(given, heard)
    from compressor.tasks.table import TASKS, require_able

    asked = task_asked(given)
    name = asked.named(data, [teacher], [], heard)
    if TASKS[name].completes:
        refuse_unfit(given, "model")
        return completed_here(given, name, heard)
    refuse_unfit(given, "classes")
    require_able(name, "kdc predict")
    from compressor.distill import predict as run

    classes = optional_path(teacher_classes, "--teacher-classes")
    done = run(
        teacher, data, table, top_k=top_k, labels_only=labels_only, teacher_classes=classes,
        unlabelled=unlabelled, pixel_range=pixel_range, skip_bad=skip_bad, overwrite=overwrite, task=name,
        columns=asked.columns, licence=licence, terms=terms, progress=heard,
    )  # fmt: skip
    return PredictionsResult(table, done, heard.warnings)


@api_call
@called_like(predict)
def plan_predict(**keywords: Any) -> CompletionPlanResult:
    """What `predict` of a language model with the same keywords would ask for; asks nothing and writes nothing.

    Args:
        keywords: those of `predict`.

    Raises:
        KdcError: see `predict`, and where the teacher answers by a class.
    """
    heard = listener(keywords["progress"])
    if not is_endpoint(text_of(keywords["teacher"], "--teacher")):
        raise KdcError("--plan says how many prompts are to be asked, of --teacher api:URL#MODEL", "leave it out")
    refuse_unfit(keywords, "endpoint")
    return plan_completed(keywords, heard)
