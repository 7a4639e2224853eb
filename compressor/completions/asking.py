"""`kdc predict --teacher api:URL#MODEL`: a table of completions, each question asked once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from compressor.completions.client import KEY_VARIABLE, Client, key_from, parse_endpoint
from compressor.completions.pool import Patience, Pool, Unanswered
from compressor.data.completion_files import Growing, growing, read_completions, require_jsonl
from compressor.data.labels import listed
from compressor.data.prompts import Prompts, read_prompts
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.schema.base import parse
from compressor.schema.completions import Completion, CompletionPlan, Completions, Key, Mode, Question
from compressor.schema.provenance import UNKNOWN

__all__ = ["AGAIN", "Asking", "complete", "matched", "plan", "plan_text", "tell"]

MOST_IN_A_ROW = 10
"""Questions without an answer that can be used, one after the other and none with one: then it is not the questions."""
AGAIN = "--resume asks for the rest"


@dataclass(frozen=True)
class Asking:
    """How a language model is asked. `samples`: answers a prompt; `licence` and `terms`: under which they are used,
    where that is known; `key_variable`: None is OPENAI_API_KEY; `timeout_s`: for an answer."""

    mode: Mode = "chat"
    temperature: float = 0.0
    max_tokens: int = 512
    samples: int = 1
    seed: int | None = None
    logprobs: bool = False
    licence: str | None = None
    terms: str | None = None
    key_variable: str | None = None
    allow_http: bool = False
    concurrency: int = 4
    timeout_s: float = 120.0

    @property
    def stated(self) -> dict[str, str]:
        return {"licence": self.licence or UNKNOWN, "terms": self.terms or UNKNOWN}

    def questions(self, prompts: Sequence[str], model: str) -> list[Question]:
        """All of them; of several samples the second one has the next seed. Raises KdcError."""
        if self.samples > 1 and not self.temperature:
            raise KdcError(
                f"--samples {self.samples} at temperature 0 would be {self.samples} times the same answer",
                "--temperature 0.7",
            )
        fixed = {
            "model": model, "mode": self.mode, "temperature": float(self.temperature), "max_tokens": self.max_tokens,
        }  # fmt: skip
        return [
            parse(
                Question,
                {
                    **fixed,
                    "prompt": prompt,
                    "sample": number,
                    "seed": None if self.seed is None else self.seed + number,
                },
                "the question",
            )
            for prompt in prompts
            for number in range(self.samples)
        ]


def complete(
    teacher: str, data: str, out: Path, asking: Asking, *, progress: Progress, column: str | None = None,
    resume: bool = False, patience: Patience | None = None,
) -> Completions:  # fmt: skip
    """Ask the endpoint `teacher` for what the table `out` lacks of answers to the prompts in `data`, and append each.

    Args:
        teacher: api:URL#MODEL.
        data: jsonl:FILE or csv:FILE.
        out: a file of JSON lines; see `data.completion_files`.
        asking: how.
        column: the one with the prompts; None: `prompt`.
        resume: go on with a table that is there.
        patience: between tries.

    Raises:
        KdcError: for what is wrong with these, and where the endpoint answers no question. What was answered is in the
            table, whatever happens.
    """
    require_jsonl(out, "--out")
    endpoint = parse_endpoint(teacher, allow_http=asking.allow_http)
    prompts = read_prompts(data, column)
    questions = asking.questions(prompts.texts, endpoint.model)
    client = Client(
        endpoint, key_from(asking.key_variable, endpoint), timeout_s=asking.timeout_s, logprobs=asking.logprobs
    )
    with growing(out, resume=resume) as table:
        stated = asking.stated
        there = matched(table.rows, questions, stated, endpoint.model)
        missing = [question for question in questions if question.key not in there]
        tell(prompts, questions, missing, len(table.rows) - len(there), progress)
        if missing and asking.licence is None:
            progress.warn(f"the licence of {endpoint.model}'s answers is not known: state it, --licence and --terms")
        unanswered = _filled(table, missing, client, asking, stated, patience or Patience(), progress)
        rest = len(missing) - sum(unanswered.values())
        return Completions(
            out=str(out), teacher=teacher, asked=rest, before=len(there), others=len(table.rows) - len(there),
            unanswered=dict(unanswered), licence=stated["licence"], terms=stated["terms"],
        )  # fmt: skip


def plan(
    teacher: str, data: str, out: Path, asking: Asking, *, column: str | None = None, resume: bool = False
) -> CompletionPlan:
    """What `complete` with the same arguments would ask for; asks nothing and writes nothing. Raises KdcError."""
    require_jsonl(out, "--out")
    endpoint = parse_endpoint(teacher, allow_http=asking.allow_http)
    prompts = read_prompts(data, column)
    questions = asking.questions(prompts.texts, endpoint.model)
    rows = read_completions(out, torn=True).rows if out.exists() else ()
    if out.exists() and not resume:
        raise KdcError(f"--out {out} exists", "--resume to go on with it, or another --out")
    there = matched(rows, questions, asking.stated, endpoint.model)
    key = key_from(asking.key_variable, endpoint)
    return CompletionPlan(
        out=str(out), teacher=teacher, prompts=len(prompts.texts), samples=asking.samples, repeated=prompts.repeated,
        test=prompts.test, questions=len(questions), answered=len(there), to_ask=len(questions) - len(there),
        key=None if key is None else asking.key_variable or KEY_VARIABLE,
    )  # fmt: skip


def plan_text(told: CompletionPlan) -> str:
    """For people."""
    lines = [
        f"{told.prompts:,} prompts" + (f" × {told.samples} samples" if told.samples > 1 else ""),
        *([f"{told.repeated:,} more stand there again, and are asked once"] if told.repeated else []),
        *([f"{told.test:,} of the test split are not asked"] if told.test else []),
        f"key: {'none is sent' if told.key is None else f'from {told.key}'}",
        f"{told.answered:,} of {told.questions:,} are answered in {told.out}; {told.to_ask:,} would be asked",
    ]
    return "\n".join(lines) + "\n"


def matched(
    rows: Sequence[Completion], questions: Sequence[Question], stated: Mapping[str, str], model: str
) -> set[Key]:
    """The keys of the questions that are answered. Raises KdcError where rows of this model say another licence, or
    other terms, than what is `stated` now."""
    for name, text in stated.items():
        told = {getattr(row, name) for row in rows if row.model == model}
        if told - {text}:
            raise KdcError(
                f"--{name}: the table says {listed(sorted(told))} of {model}, and now it is {text}",
                "state the same, or another --out",
            )
    asked = {question.key for question in questions}
    return {row.key for row in rows if row.key in asked}


def tell(
    prompts: Prompts, questions: Sequence[Question], missing: Sequence[Question], others: int, progress: Progress
) -> None:
    """Say what is not asked, and why."""
    if prompts.repeated:
        progress.note(f"{prompts.repeated:,} prompts stand in the data again: each is asked once")
    if prompts.test:
        progress.note(f"{prompts.test:,} prompts of the test split are left out")
    if len(missing) < len(questions):
        progress.note(f"{len(questions) - len(missing):,} of {len(questions):,} are answered already")
    if others:
        progress.warn(f"the table holds {others:,} answers to other questions (prompts, models or settings): they stay")


def _filled(
    table: Growing, missing: Sequence[Question], client: Client, asking: Asking, stated: dict[str, str],
    patience: Patience, progress: Progress,
) -> Counter[str]:  # fmt: skip
    """Ask for what is missing and append it; returns why questions have no answer, with how many."""
    unanswered: Counter[str] = Counter()
    if not missing:
        return unanswered
    others: Counter[str] = Counter()
    done = in_a_row = 0
    pool = Pool(client, missing, min(asking.concurrency, len(missing)), patience)
    with closing(_Shown(progress, len(missing))) as shown:
        try:
            for result in pool.results():
                if isinstance(result, Unanswered):
                    unanswered[result.why] += 1
                    in_a_row += 1
                    if not done and (in_a_row >= MOST_IN_A_ROW or (in_a_row == len(missing) and not table.rows)):
                        raise KdcError(f"--teacher api: no question has an answer: {result.why}", AGAIN)
                else:
                    table.append(result.model_copy(update=stated))
                    others.update([result.answered_by] if result.answered_by else [])
                    done += 1
                shown.next()
        except BaseException as error:
            pool.stop()
            kept = 0
            with suppress(KdcError):  # the disk is full: that is what it ended of
                for answer in pool.left():
                    table.append(answer.model_copy(update=stated))
                    kept += 1
            if isinstance(error, KeyboardInterrupt):
                progress.warn(f"stopped: {done + kept:,} of {len(missing):,} were answered and are kept; {AGAIN}")
            raise
    for why, count in unanswered.items():
        progress.warn(f"{count:,} questions have no answer that can be used: {why}")
    _tell_others(client.endpoint.model, others, progress)
    return unanswered


def _tell_others(model: str, others: Mapping[str, int], progress: Progress) -> None:
    """Say of which models answers are, as the endpoint has it; gpt-4o-2024-08-06 is gpt-4o."""
    for name, count in others.items():
        if model.rpartition("/")[2].casefold() not in name.casefold():
            progress.warn(f"{count:,} answers are of {name}, as the endpoint says, and {model} was asked")


class _Shown:
    """How far it is, for people."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def next(self) -> None:
        self._done += 1
        self._progress.at("the teacher's answers", self._done, self._total)

    def close(self) -> None:
        self._progress.end()
