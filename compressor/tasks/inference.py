"""Which task is meant: as it is stated, or else as models and data tell.

A scheme that one task alone has tells by itself, as timm: does. Of those that several have, the start of the data and a
model's config.json are looked at (the `signs` of a row). What cannot be read tells nothing: who opens it later says
why.
"""

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.hub_data import SAVED
from compressor.data.places import expanded
from compressor.data.table_files import header_of
from compressor.errors import KdcError
from compressor.files.reading import json_value, read_text
from compressor.references import Reference
from compressor.tasks.table import DEFAULT, TASKS, task_named

if TYPE_CHECKING:
    from compressor.tasks.base import Task

__all__ = ["Inferred", "inferred", "task_of_model"]

LOOKED_AT = 2000
"""Files of a folder."""
MOST_BYTES = 16_000_000
GENERAL = "vocab_size"
"""A sign that many models bear, whatever they are for."""


@dataclass(frozen=True)
class Inferred:
    """The task, and why, for a line to people; `said`: it is worth one."""

    name: str
    why: str
    said: bool


def inferred(
    data: str, teachers: Sequence[str], students: Sequence[str], *, task: str | None, stated_columns: bool
) -> Inferred:
    """The task of a command. `stated_columns`: columns of texts were named. Raises KdcError where the parts of the
    command are of different tasks, or where nothing tells several apart."""
    if task is not None and task not in TASKS:
        raise KdcError(f"--task {task!r} is none that kdc knows", f"known: {', '.join(TASKS)}")
    claims = _of_data(data)
    votes = [*_of_models(teachers, "teacher", _of_teacher), *_of_models(students, "student", _of_student)]
    if not votes and (len(claims) > 1 or stated_columns):  # a model whose head is of one of these
        votes = [vote for vote in _of_models(teachers, "teacher", _of_head) if stated_columns or vote[0] in claims]
    able = [] if votes else _able(students)
    if able and not any(name in claims for name in able):
        votes = [(able[0], f"the student {students[0]}")]
    if stated_columns and not votes:
        claims = dict([next((name, "--text-column") for name, row in TASKS.items() if row.columns)])
    if task is not None:
        votes.insert(0, (task, f"--task {task}"))
    for name, why in votes[1:]:
        if name != votes[0][0]:
            raise KdcError(f"{votes[0][1]} is for {votes[0][0]}, and {why} for {name}", "give models of one task")
    if votes:
        name, why = votes[0]
        if task is None and claims and name not in claims:
            other, sign = next(iter(claims.items()))
            raise KdcError(
                f"{data} looks like data for {other} ({sign}), and {why} is for {name}",
                f"give a model for {other}, or insist: --task {name}",
            )
        return Inferred(name, why, said=task is not None or name != DEFAULT)
    if len(claims) > 1:
        signs = " and ".join(f"{name} ({sign})" for name, sign in claims.items())
        raise KdcError(f"{data} may be data for {signs}, and no model tells which", f"--task {' or '.join(claims)}")
    for name, sign in claims.items():
        return Inferred(name, f"{data}: {sign}", said=name != DEFAULT)
    return Inferred(DEFAULT, "the default", said=False)


def task_of_model(reference: str, task: str | None = None) -> "Task | None":
    """The task whose model `reference` names: `task`, where that has such models; else as the model tells, and where it
    does not, the default one. None where no task has models with such a reference."""
    scheme = Reference.parse(reference).scheme
    knowing = [name for name, row in TASKS.items() if scheme in row.models]
    if not knowing:
        return None
    name = task if task in knowing else _of_teacher(reference)
    return task_named(name or (DEFAULT if DEFAULT in knowing else knowing[0]))


def _of_models(references: Sequence[str], what: str, tell: Any) -> Iterator[tuple[str, str]]:
    for reference in references:
        name = tell(reference)
        if name is not None:
            yield name, f"the {what} {reference}"


def _of_teacher(reference: str) -> str | None:
    named = Reference.parse(reference)
    for scheme, file in (("run", "student.json"), ("specialists", "specialists.json")):
        if (folder := named.folder(scheme)) is not None:
            task = _json(folder / file).get("task")
            return task if task in TASKS else None
    return _by_scheme(named, [name for name, row in TASKS.items() if named.scheme in row.models])


def _of_head(reference: str) -> str | None:
    """The task of the head that a configuration names, of a model that several could use."""
    named = Reference.parse(reference)
    claiming = _claiming(named, [name for name, row in TASKS.items() if named.scheme in row.models])
    special = [name for name, sign in claiming.items() if sign != GENERAL]
    return special[0] if len(special) == 1 else None


def _of_student(reference: str) -> str | None:
    named = Reference.parse(reference)
    models = [name for name, row in TASKS.items() if named.scheme in row.models]
    if len(models) > 1:  # hf: of whatever task
        return _by_scheme(named, models)
    return _by_scheme(named, [name for name, row in TASKS.items() if named.scheme in row.students])


def _able(students: Sequence[str]) -> list[str]:
    """The tasks that have such students, where several have."""
    schemes = {Reference.parse(student).scheme for student in students}
    return [name for name, row in TASKS.items() if schemes & {*row.students} and not schemes & {*row.models}]


def _by_scheme(named: Reference, knowing: list[str]) -> str | None:
    if len(knowing) < 2:
        return knowing[0] if knowing else None
    claiming = [*_claiming(named, knowing)]
    return claiming[0] if len(claiming) == 1 else None


def _claiming(named: Reference, knowing: list[str]) -> dict[str, str]:
    """Those of the tasks that a model's configuration may be for, each with what tells."""
    path = Path(named.rest or "")
    config = _json(path if path.suffix == ".json" else path / "config.json")
    signs = {name: _signs(name).of_config(config) if config else _signs(name).of_file(path.name) for name in knowing}
    return {name: sign for name, sign in signs.items() if sign}


def _of_data(reference: str) -> dict[str, str]:
    """The tasks that the data may be for, each with what tells."""
    named = Reference.parse(reference)
    knowing = [name for name, row in TASKS.items() if named.scheme in row.data]
    if len(knowing) < 2 or not named.rest:
        return dict.fromkeys(knowing, f"{named.scheme}:")
    claims: dict[str, str] = {}
    with suppress(KdcError, OSError):
        if named.scheme == "folder":
            suffixes = sorted({*_suffixes(expanded(named.rest))})
            claims = {name: sign for name in knowing if (sign := _signs(name).of_suffixes(suffixes))}
            if len(claims) > 1:  # what is written beside images: captions, boxes
                claims = {DEFAULT: claims[DEFAULT]}
        elif named.scheme == "hf":
            features = _features(expanded(named.rest))
            claims = {name: sign for name in knowing if (sign := _signs(name).of_features(features))}
        else:
            columns = header_of(named.rest, named.scheme)
            claims = {name: sign for name in knowing if (sign := _signs(name).of_columns(columns))}
    return claims


def _signs(name: str) -> Any:
    return importlib.import_module(TASKS[name].signs)


def _json(path: Path) -> dict[str, Any]:
    with suppress(KdcError, OSError):
        values = json_value(read_text(path, most=MOST_BYTES), str(path))
        return values if isinstance(values, dict) else {}
    return {}


def _suffixes(root: Path) -> Iterator[str]:
    """Those of the first files in a folder, at any depth."""
    files = (name for _, _, names in os.walk(root) for name in names if not name.startswith("."))
    for name in islice(files, LOOKED_AT):
        if name != "classes.txt":
            yield Path(name).suffix.lower()


def _features(folder: Path) -> dict[str, str]:
    """Column -> what it holds, of a data set that `save_to_disk` left."""
    if not any((folder / marker).is_file() for marker in SAVED):
        return {}
    info = next(iter(sorted(folder.glob("**/dataset_info.json"))), folder / "dataset_info.json")
    features = _json(info).get("features")
    if not isinstance(features, dict):
        return {}
    kinds = {}
    for name, feature in features.items():
        if isinstance(feature, dict):
            kind = feature.get("_type")
            kinds[name] = str(feature.get("dtype") if kind == "Value" else kind)
    return kinds
