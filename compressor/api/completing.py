"""`predict` of a language model: what it takes, and what it gives."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compressor.api.call import Listener
from compressor.api.results import CompletionsResult
from compressor.api.results_before import CompletionPlanResult
from compressor.api.values import path_of, several, text_of
from compressor.errors import KdcError

if TYPE_CHECKING:
    from compressor.completions.asking import Asking

__all__ = ["completed", "completed_here", "is_endpoint", "plan_completed", "refuse_unfit"]

OF_COMPLETIONS: dict[str, Any] = {
    "mode": "chat", "temperature": 0.0, "max_tokens": 512, "samples": 1, "seed": None, "logprobs": False,
    "resume": False,
}  # fmt: skip
"""Keywords of `predict` for a model that answers in words, and their defaults."""
OF_ENDPOINTS: dict[str, Any] = {"key_variable": None, "allow_http": False, "concurrency": 4, "timeout": 120.0}
"""Those for one that is asked elsewhere."""
OF_CLASSES: dict[str, Any] = {
    "label_column": None, "top_k": None, "labels_only": False, "teacher_classes": None, "unlabelled": None,
    "pixel_range": None, "skip_bad": False, "overwrite": False,
}  # fmt: skip
"""Those for a model that answers by a class."""
KINDS = {
    "endpoint": ({**OF_CLASSES, "task": None}, "by a class"),
    "model": ({**OF_CLASSES, **OF_ENDPOINTS}, "by a class, or from an endpoint"),
    "classes": ({**OF_COMPLETIONS, **OF_ENDPOINTS}, "in words"),
}
"""Kind of teacher -> the keywords that it does not take, and which teachers do."""


def is_endpoint(teacher: str) -> bool:
    return teacher.startswith("api:")


def refuse_unfit(given: Mapping[str, Any], kind: str) -> None:
    """Raise KdcError for a keyword of `predict` that another kind of teacher takes."""
    unfit, others = KINDS[kind]
    for name, default in unfit.items():
        if given[name] != default and given[name] != []:
            option = f"--{name.replace('_', '-')}"
            if name == "overwrite":
                raise KdcError(
                    "--overwrite: a table of completions is added to and never replaced, since it was paid for",
                    "--resume, or another --out",
                )
            raise KdcError(
                f"{option} is for teachers that answer {others}, and {given['teacher']} is none", "leave it out"
            )


def completed(given: Mapping[str, Any], heard: Listener) -> CompletionsResult:
    """`given`: all keywords of `predict`."""
    from compressor.completions.asking import complete

    teacher, data, out, column = _places(given)
    done = complete(teacher, data, out, _asking(given), column=column, resume=given["resume"], progress=heard)
    return CompletionsResult(out, done, heard.warnings)


def completed_here(given: Mapping[str, Any], task: str, heard: Listener) -> CompletionsResult:
    """The same with a model that runs here, of a task."""
    from compressor.completions.local import complete_here

    teacher, data, out, column = _places(given)
    asking = _asking(given)
    done = complete_here(teacher, data, out, asking, task, column=column, resume=given["resume"], progress=heard)
    return CompletionsResult(out, done, heard.warnings)


def plan_completed(given: Mapping[str, Any], heard: Listener) -> CompletionPlanResult:
    """What `completed` would ask for."""
    from compressor.completions.asking import plan, plan_text

    teacher, data, out, column = _places(given)
    told = plan(teacher, data, out, _asking(given), column=column, resume=given["resume"])
    return CompletionPlanResult(told, plan_text(told), warnings=heard.warnings)


def _places(given: Mapping[str, Any]) -> tuple[str, str, Any, str | None]:
    columns = several(given["text_column"], "--text-column")
    if len(columns) > 1:
        raise KdcError("--text-column is given twice, and a prompt is one text", "one")
    places = text_of(given["teacher"], "--teacher"), text_of(given["data"], "--data"), path_of(given["out"], "--out")
    return *places, (columns[0] if columns else None)


def _asking(given: Mapping[str, Any]) -> "Asking":
    from compressor.completions.asking import Asking

    if given["mode"] not in ("chat", "text"):
        raise KdcError(f"--mode {given['mode']!r} is neither chat nor text")
    return Asking(
        mode=given["mode"], temperature=given["temperature"], max_tokens=given["max_tokens"],
        samples=given["samples"], seed=given["seed"], logprobs=given["logprobs"], licence=given["licence"],
        terms=given["terms"], key_variable=given["key_variable"], allow_http=given["allow_http"],
        concurrency=given["concurrency"], timeout_s=given["timeout"],
    )  # fmt: skip
