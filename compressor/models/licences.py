"""Whose weights and answers a request names, and under which licences, before any of them is loaded."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from compressor.data.labels import listed
from compressor.data.table_ancestors import table_ancestors
from compressor.errors import KdcError
from compressor.files.reading import json_value, read_text
from compressor.models.building import config_in
from compressor.models.hugging_face import in_cache, licence_of, terms_of
from compressor.models.references import NO_MODEL, is_table
from compressor.models.runs import read_student
from compressor.models.specialists import read_specialists
from compressor.progress import Progress
from compressor.references import CUT, Reference
from compressor.schema.provenance import UNKNOWN, Ancestor, LicenceRule
from compressor.schema.student import Request
from compressor.schema.weights import merged

__all__ = ["ancestors_named", "refuse_broken", "require_permitted"]

MOST_BYTES = 16_000_000


def require_permitted(request: Request, rule: LicenceRule, where: str, progress: Progress | None = None) -> None:
    """Raise KdcError where a teacher, or the weights that a student begins with, break a rule. `where`: who states it,
    as "recipe" or "profile x86-avx2". Reads cards, configurations and tables, and no weights. `progress`: is told of
    whom no licence is known."""
    if rule.stated:
        refuse_broken(rule, _named_in(request), where, progress)


def refuse_broken(
    rule: LicenceRule, ancestors: Iterable[Ancestor], where: str, progress: Progress | None = None
) -> None:
    """Raise KdcError for the first of these that breaks a rule; see `require_permitted`."""
    unknown = []
    for ancestor in ancestors:
        if (clause := rule.broken_by(ancestor)) is not None:
            raise KdcError(
                f"{where} licence.{clause} rules out {ancestor.named}",
                "take another one; or where its licence is known, let its model card, or kdc predict --licence, say it",
            )
        if ancestor.is_unknown and ancestor.named not in unknown:
            unknown.append(ancestor.named)
    if rule.stated and unknown and progress is not None:
        progress.warn(
            f"{where} licence.forbid: no licence is known of {listed(unknown)}; licence.require would rule it out"
        )


def _named_in(request: Request) -> Iterator[Ancestor]:
    if request.command == "teach" and request.init == "random":
        return
    for reference in (request.teacher, *request.other_teachers, request.cut_from):
        if reference is not None:
            yield from ancestors_named(reference)
    if request.init == "pretrained":
        for student in filter(None, (*request.assistants, request.student, *request.raced)):
            if not student.startswith(CUT):
                yield from ancestors_named(student)
    for peer in request.recipe.peers:
        if peer.init == "pretrained":
            yield from ancestors_named(peer.student)


def ancestors_named(reference: str) -> tuple[Ancestor, ...]:
    """Whose weights or answers a reference names; what nothing says is unknown. Raises KdcError where it names what is
    not there."""
    named = Reference.parse(reference)
    if reference in NO_MODEL:
        return ()
    if is_table(reference):
        return table_ancestors(Path(named.rest or ""), reference)
    if (run := named.folder("run")) is not None:
        return read_student(run).ancestors
    if (folder := named.folder("specialists")) is not None:
        record = read_specialists(folder)
        runs = [read_student(folder / row.run).ancestors for row in record.specialists]
        return tuple(dict.fromkeys([*merged([record.generalist]), *(ancestor for row in runs for ancestor in row)]))
    if named.scheme == "hf" and named.rest:
        licence = licence_of(named.rest, SimpleNamespace(**_config_of(named.rest)))
        return (Ancestor(source=reference, licence=licence, terms=terms_of(named.rest)),)
    return (Ancestor(source=reference, model=named.name or UNKNOWN, licence=_of_timm(named)),)


def _config_of(reference: str) -> dict[str, Any]:
    """The config.json of a model as transformers lays it out; empty where there is none to be had."""
    path = Path(reference) if reference.endswith(".json") else Path(reference) / "config.json"
    try:
        values = config_in(path if Path(reference).exists() else Path(in_cache(reference, "config.json")))
    except Exception:  # no such file, or the hub away: who loads the model says so
        return {}
    return {name: value for name, value in values.items() if name.isidentifier()} if isinstance(values, dict) else {}


def _of_timm(named: Reference) -> str:
    """The licence that timm's configuration of pretrained weights states, or a folder's of it; of a checkpoint nothing
    does."""
    if named.local is not None:
        values = json_value(read_text(named.local / "config.json", most=MOST_BYTES), str(named.local / "config.json"))
        inner = values.get("pretrained_cfg", values) if isinstance(values, dict) else {}
        return str(inner.get("license") or UNKNOWN) if isinstance(inner, dict) else UNKNOWN
    if named.scheme != "timm" or named.at is not None:
        return UNKNOWN
    from timm.models import get_pretrained_cfg

    try:
        cfg = get_pretrained_cfg(named.name.split("+")[0])
    except Exception:  # no such model: who loads it says so
        return UNKNOWN
    return str(getattr(cfg, "license", None) or UNKNOWN)
