"""Filters on a language model's completions, before a student learns from them. None of them asks a model: they go by
what the table holds. What each of them takes for a fault is said in `schema.completion_filters`."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations

from compressor.errors import KdcError
from compressor.names import spelt
from compressor.schema.completion_filters import CompletionFilters, Filtered
from compressor.schema.completions import Completion

__all__ = ["filtered", "repetition", "told", "word_f1"]

CONTROLS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
CUT = frozenset({"length", "max_tokens", "model_length", "content_filter", "safety", "error", "abort"})
"""What servers call the end of an answer that its model did not end."""
RUN = 13
WORD = re.compile(r"\w+")

Rows = Sequence[Completion]


def filtered(
    rows: Rows, filters: CompletionFilters, held_out: Collection[str] = (), texts: Iterable[str] = ()
) -> tuple[tuple[Completion, ...], Filtered]:
    """The completions that are left, in their order, and what was left out.

    Args:
        rows: of one table.
        filters: which ones are asked for.
        held_out: prompts of the validation and test splits, which nobody may learn from.
        texts: what stands there to be answered, or to be gone on with; of this a completion may not have `RUN` words
            in a row, whatever its prompt was (13-grams, as in Brown et al. 2020, arXiv 2005.14165, app. C).

    Raises:
        KdcError: where nothing is left.
    """
    held = {_compared(prompt) for prompt in held_out}
    runs = {run for text in texts for run in _runs(_words(text))}
    left_out: Counter[str] = Counter()
    kept: Rows = rows
    for why, keeps in _each(filters, held, runs):
        still = [row for row in kept if keeps(row)]
        left_out[why] += len(kept) - len(still)
        kept = still
    for why, choose in _of_prompts(filters):
        chosen = choose(kept)
        left_out[why] += len(kept) - len(chosen)
        kept = chosen
    counts = Filtered(
        filters=filters, rows=len(rows), kept=len(kept), left_out={why: n for why, n in left_out.items() if n}
    )
    if not kept:
        raise KdcError(f"no completion is left of {len(rows):,}: {told(counts)}", "looser filters in the recipe")
    return tuple(kept), counts


def told(counts: Filtered) -> str:
    """For people: "of 100 completions 90 are learned from; left out: 10 that repeat themselves"."""
    parts = ", ".join(f"{count:,} {why}" for why, count in counts.left_out.items())
    return f"of {counts.rows:,} completions {counts.kept:,} are learned from{f'; left out: {parts}' if parts else ''}"


def _each(
    filters: CompletionFilters, held: Collection[str], runs: AbstractSet[int]
) -> Iterable[tuple[str, Callable[[Completion], bool]]]:
    """The filters that look at a completion by itself, and what to say of those that they leave out."""
    least, most = filters.min_length, filters.max_length
    yield "whose prompt is held out for validation or test", lambda row: _compared(row.prompt) not in held
    if runs:
        yield f"that repeat {RUN} words of validation or test", lambda row: runs.isdisjoint(_runs_of(row))
    yield f"shorter than {least} characters", lambda row: len(row.completion.strip()) >= least
    if most is not None:
        yield f"longer than {most:,} characters", lambda row: len(row.completion.strip()) <= most
    if filters.cut_off:
        yield "cut off", lambda row: (row.finish_reason or "").casefold() not in CUT
    if filters.controls:
        yield "with control characters", lambda row: CONTROLS.search(row.completion) is None
    if (share := filters.repetition) is not None:
        yield "that repeat themselves", lambda row: repetition(row.completion, filters.ngram) <= share
    if (lowest := filters.log_likelihood) is not None:
        yield "without log-probabilities", lambda row: row.log_likelihood is not None
        yield "that the teacher finds unlikely", lambda row: (row.log_likelihood or 0.0) >= lowest


def _of_prompts(filters: CompletionFilters) -> Iterable[tuple[str, Callable[[Rows], Rows]]]:
    """The filters that look at all completions of a prompt."""
    if (least := filters.agreement) is not None:
        yield "whose prompt has a single sample", _compared_rows
        yield "that samples of their prompt do not agree with", lambda rows: _agreeing(rows, least)
    if filters.one_each:
        yield "beside the first of their prompt", _firsts


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def _runs(words: Sequence[str]) -> Iterator[int]:
    """A number for each run of `RUN` words: a split has as many of them as words, and they take less as numbers."""
    return (hash(tuple(words[start : start + RUN])) for start in range(len(words) - RUN + 1))


def _runs_of(row: Completion) -> Iterator[int]:
    """Those that end in the completion."""
    return _runs([*_words(row.prompt)[1 - RUN :], *_words(row.completion)])


def _compared_rows(rows: Rows) -> Rows:
    samples = _samples(rows)
    return [row for row in rows if len(samples[row.prompt]) > 1]


def _firsts(rows: Rows) -> Rows:
    """The first sample of each prompt."""
    firsts = {
        prompt: min(samples, key=lambda row: (row.sample, repr(row.key))) for prompt, samples in _samples(rows).items()
    }
    return [row for row in rows if row is firsts[row.prompt]]


def repetition(text: str, n: int) -> float:
    """The share of a text's n-grams of words that stand in it before: 0 where all differ, or there are none.

    Args:
        text: whatever; words are runs of letters and digits, whatever their case.
        n: words of an n-gram.
    """
    words = WORD.findall(text.casefold())
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return 1.0 - len({*grams}) / len(grams) if grams else 0.0


def word_f1(first: str, second: str) -> float:
    """How far two texts have the same words, whatever their order: the F1 of SQuAD (Rajpurkar et al. 2016, arXiv
    1606.05250, sec. 6.1), without its articles; 1 for two texts without words."""
    counts = [Counter(WORD.findall(text.casefold())) for text in (first, second)]
    total = sum(map(sum, (count.values() for count in counts)))
    return 2 * sum((counts[0] & counts[1]).values()) / total if total else 1.0


def _samples(rows: Rows) -> dict[str, list[Completion]]:
    samples = defaultdict(list)
    for row in rows:
        samples[row.prompt].append(row)
    return samples


def _agreeing(rows: Rows, least: float) -> Rows:
    """Of each prompt whose samples agree, the one that agrees best with the others; the first of equals."""
    chosen = set()
    for prompt, samples in _samples(rows).items():
        pairs = {
            (a, b): word_f1(samples[a].completion, samples[b].completion)
            for a, b in combinations(range(len(samples)), 2)
        }
        if sum(pairs.values()) / len(pairs) >= least:
            of_each = [sum(score for pair, score in pairs.items() if number in pair) for number in range(len(samples))]
            chosen.add((prompt, samples[of_each.index(max(of_each))].key))
    return [row for row in rows if (row.prompt, row.key) in chosen]


def _compared(prompt: str) -> str:
    """A prompt as prompts are compared: blanks and case say nothing."""
    return " ".join(spelt(prompt).casefold().split())
