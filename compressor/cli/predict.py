"""kdc predict: a signature, help and one call."""

import json
from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.options import (
    AsJson,
    Data,
    LabelColumn,
    OverwriteFile,
    Quiet,
    SkipBad,
    Task,
    TeacherClasses,
    TextColumn,
    finite,
)
from compressor.cli.plan import show_plan
from compressor.references import ANSWERING

__all__ = ["predict"]


def predict(
    teacher: Annotated[str, typer.Option(help=f"The model that predicts: {ANSWERING}.")],
    data: Data,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The table, .csv or .parquet, of completions .jsonl: --teacher outputs:FILE."
        ),
    ],
    task: Task = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Only the K most probable classes of each sample, and the rest's mass."
        ),
    ] = None,
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="Only the most probable class of each sample.")
    ] = False,
    teacher_classes: TeacherClasses = None,
    unlabelled: Annotated[
        str | None, typer.Option(metavar="REF", help="Also images without labels, as kdc distill takes them.")
    ] = None,
    pixel_range: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="BLACK WHITE", help="Of deep images, as pixel_range in a recipe; runs know their own."),
    ] = None,
    skip_bad: SkipBad = False,
    licence: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the teacher's answers, as SPDX spells it, where no file says it."),
    ] = None,
    terms: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Under which they are used: a name, a link, a sentence.")
    ] = None,
    mode: Annotated[
        str, typer.Option(metavar="chat|text", help="A prompt is a user's message, or goes on where it ends.")
    ] = "chat",
    temperature: Annotated[
        float, typer.Option(min=0, max=100, callback=finite, help="0: the most probable token at each step.")
    ] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, max=1_000_000, help="The most of a completion.")] = 512,
    samples: Annotated[int, typer.Option(min=1, max=1_000, help="Completions a prompt.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**31 - 1, help="Of completions that are drawn; the next sample has the next."),
    ] = None,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="Also keep the log-probabilities of a completion's tokens.")
    ] = False,
    key_variable: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The environment variable with the key. Default: OPENAI_API_KEY."),
    ] = None,
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Also ask another machine without encryption.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Prompts asked at a time.")] = 4,
    timeout: Annotated[
        float, typer.Option(min=1, max=86_400, callback=finite, help="Seconds for a completion.")
    ] = 120.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a table of completions: what it holds is not asked again.")
    ] = False,
    overwrite: OverwriteFile = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say how many prompts there are, and are answered already.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a teacher's predictions into a table: log-probabilities of classes, or a language model's completions."""
    from compressor import api
    from compressor.terminal.console import progress_for, show_json, show_line

    asked = {
        "teacher": teacher, "data": data, "out": out, "task": task, "text_column": text_column,
        "label_column": label_column, "top_k": top_k, "labels_only": labels_only, "teacher_classes": teacher_classes,
        "unlabelled": unlabelled, "pixel_range": pixel_range, "skip_bad": skip_bad, "licence": licence, "terms": terms,
        "mode": mode, "temperature": temperature, "max_tokens": max_tokens, "samples": samples, "seed": seed,
        "logprobs": logprobs, "key_variable": key_variable, "allow_http": allow_http, "concurrency": concurrency,
        "timeout": timeout, "resume": resume, "overwrite": overwrite, "progress": progress_for(quiet),
    }  # fmt: skip
    if plan:
        show_plan(api.plan_predict(**asked), as_json)
    done = api.predict(**asked)  # type: ignore[arg-type]
    if as_json:
        show_json(json.dumps(done.to_dict(), indent=2))
    else:
        show_line(f"{done.summary}; teach with --teacher {done.reference}")
