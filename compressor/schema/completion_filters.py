"""Which of a teacher's completions a student learns from, and how many were left out."""

from typing import Annotated

from pydantic import Field

from compressor.schema.base import Noun

__all__ = ["CompletionFilters", "Filtered"]

Share = Annotated[float, Field(gt=0, le=1)]


class CompletionFilters(Noun):
    """What is left out of a table of completions: a language model also answers with what it does not know, in loops,
    or to the end of its tokens, and a student learns that as well. They tell what such answers look like, and not
    whether one is true."""

    min_length: Annotated[int, Field(ge=0)] = 1
    """Characters that an answer has at least, blanks around it left out."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """Characters that it has at most."""
    cut_off: bool = True
    """Leave out what the model did not end itself (finish_reason "length", "content_filter", "error" and the like): it
    has no end to learn."""
    controls: bool = True
    """Leave out what holds control characters but tabs and line breaks."""
    ngram: Annotated[int, Field(ge=1, le=100)] = 4
    """Words of an n-gram, for `repetition`."""
    repetition: Share | None = None
    """The largest share of an answer's n-grams that may stand in it before (1 - distinct n-grams / n-grams)."""
    agreement: Share | None = None
    """The least agreement of the samples of a prompt: the mean, over pairs of them, of the F1 of their words. The
    sample stays that agrees best with the others. A prompt with a single sample cannot be told, and is left out."""
    log_likelihood: Annotated[float, Field(lt=0)] | None = None
    """The least mean of the tokens' log-probabilities by the teacher, nats. What comes without them cannot be told, and
    is left out."""
    one_each: bool = False
    """Keep only the first sample of each prompt that is left."""


class Filtered(Noun):
    """Of `rows` completions, how many are `kept`, and by why the others were `left_out`; each of these once, by the
    first filter that it met. `test`: prompts that stand in the test or validation split are always left out."""

    filters: CompletionFilters
    rows: int
    kept: int
    left_out: dict[str, int]
