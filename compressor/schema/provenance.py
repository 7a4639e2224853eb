"""Provenance: whose work a model is made of, under which licence and terms; and the rule that it is held against."""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from compressor.names import line_fault
from compressor.schema.base import Noun

__all__ = ["UNKNOWN", "Ancestor", "LicenceRule", "Line"]

UNKNOWN = "unknown"
NOBODYS = "none ("
"""How the licence of weights begins that were drawn here, and of which nobody holds any right."""

JOINTS = re.compile(r"\s+(?:AND|OR)\s+|\s*,\s*|[()]")
"""What stands between the licences of an SPDX expression (spdx.github.io/spdx-spec, annex D), or in a list of them."""
EXCEPTION = re.compile(r"\s+WITH\s+")


def _one_line(text: str) -> str:
    if fault := line_fault(text):
        raise ValueError(fault)
    return text


Line = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_one_line)]


class Ancestor(Noun):
    """A model whose weights or answers went into another one: its name as it is referred to, the `licence` as its
    metadata or its table say, and the `terms` beside it: a name, a link, a sentence. "unknown": nothing says it."""

    source: str
    model: str = UNKNOWN
    licence: str = UNKNOWN
    terms: str = UNKNOWN

    @property
    def named(self) -> str:
        """Its source, and the model's name where that is another."""
        return self.source if self.model in (UNKNOWN, self.source) else f"{self.source} ({self.model})"

    @property
    def is_unknown(self) -> bool:
        """Whether nothing says under what it is used."""
        return UNKNOWN == self.licence == self.terms


Pattern = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]


class LicenceRule(Noun):
    """Which licences the teachers' answers, and the weights that a student begins with, may be under. Patterns, in
    which `*` stands for anything; upper and lower case are the same."""

    forbid: tuple[Pattern, ...] = ()
    """A licence, terms or the name of a model that one of these matches is refused: CC-BY-NC-*, gemma*, text-davinci-*.
    """
    require: tuple[Pattern, ...] = ()
    """Every licence must be known, and match one of these; of several that hold together, each. Empty: any may be."""

    @property
    def stated(self) -> bool:
        """Whether it says anything."""
        return bool(self.forbid or self.require)

    def broken_by(self, ancestor: Ancestor) -> str | None:
        """The clause that `ancestor` breaks, and how, as "forbid: CC-BY-NC-* (its licence is CC-BY-NC-4.0)"; None where
        it breaks none."""
        for pattern in self.forbid:
            for what, text in _told(ancestor):
                if _matches(pattern, text):
                    return f"forbid: {pattern} ({what} {text})"
        if not self.require or ancestor.licence.startswith(NOBODYS):
            return None
        wanted = f"require: {', '.join(self.require)}"
        if UNKNOWN in _parts(ancestor.licence):
            return f"{wanted} (its licence is not known)"
        if _any(self.require, [ancestor.licence]):
            return None
        strange = [part for part in _parts(ancestor.licence) if not _any(self.require, [part])]
        return f"{wanted} (its licence is {', '.join(strange)})" if strange else None


def _told(ancestor: Ancestor) -> Iterator[tuple[str, str]]:
    """All that a pattern may match, each with what it is."""
    parts = list(_parts(ancestor.licence))
    bare = [EXCEPTION.split(part)[0] for part in parts]
    for licence in dict.fromkeys([ancestor.licence, *parts, *bare]):
        yield "its licence is", licence
    yield "its terms are", ancestor.terms
    yield "its model is", ancestor.model
    yield "it is", ancestor.source


def _parts(licence: str) -> Iterable[str]:
    return [part for part in JOINTS.split(licence) if part.strip()] or [licence]


def _any(patterns: Iterable[str], texts: Iterable[str]) -> bool:
    return any(_matches(pattern, text) for pattern in patterns for text in texts)


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text.strip(), re.IGNORECASE | re.DOTALL) is not None
