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
from compressor.data.table_files import first_cells, header_of
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
    votes = [*_of_models(teachers, "teacher", _of_teacher), *_of_models(students, "student", _of_student)]
    claims = _of_data(data)
    if task is not None:
        votes.insert(0, ([task], f"--task {task}"))
    possible = _common(votes)
    with_columns = [name for name, row in TASKS.items() if row.columns and name in possible]
    if stated_columns and with_columns and len(possible) > 1:
        claims = dict.fromkeys(with_columns, "--text-column")
    why = votes[0][1] if votes else ""
    if claims and task is None and not any(name in claims for name in possible):
        other, sign = next(iter(claims.items()))
        raise KdcError(
            f"{data} looks like data for {other} ({sign}), and {why} is for {' or '.join(possible)}",
            f"give a model for {other}, or insist: --task {possible[0]}",
        )
    if len(possible) == 1:
        return Inferred(possible[0], why, said=task is not None or possible[0] != DEFAULT)
    claims = {name: sign for name, sign in claims.items() if name in possible}
    if len(claims) > 1:
        signs = " and ".join(f"{name} ({sign})" for name, sign in claims.items())
        raise KdcError(f"{data} may be data for {signs}, and no model tells which", f"--task {' or '.join(claims)}")
    for name, sign in claims.items():
        return Inferred(name, f"{data}: {sign}", said=name != DEFAULT)
    return Inferred(DEFAULT if DEFAULT in possible else possible[0], "the default", said=False)


def _common(votes: Sequence[tuple[list[str], str]]) -> list[str]:
    """The tasks that all votes leave; raises KdcError where there is none."""
    possible = [*TASKS]
    for number, (names, why) in enumerate(votes):
        left = [name for name in possible if name in names]
        if not left:
            before = next(other for other in reversed(votes[:number]) if not {*other[0]} & {*names})
            raise KdcError(
                f"{before[1]} is for {' or '.join(before[0])}, and {why} for {' or '.join(names)}",
                "give models of one task",
            )
        possible = left
    return possible


def task_of_model(reference: str, task: str | None = None) -> "Task | None":
    """The task whose model `reference` names: `task`, where that has such models; else as the model tells, and where it
    does not, the default one. None where no task has models with such a reference."""
    scheme = Reference.parse(reference).scheme
    knowing = [name for name, row in TASKS.items() if scheme in row.models]
    if not knowing:
        return None
    if task in knowing:
        return task_named(task)
    told = _of_teacher(reference)
    return task_named(DEFAULT if DEFAULT in told else told[0])


def _of_models(references: Sequence[str], what: str, tell: Any) -> Iterator[tuple[list[str], str]]:
    for reference in references:
        names = tell(reference)
        if names:
            yield names, f"the {what} {reference}"


def _of_teacher(reference: str) -> list[str]:
    """The tasks that it may be for; none where it does not tell."""
    named = Reference.parse(reference)
    for scheme, file in (("run", "student.json"), ("specialists", "specialists.json")):
        if (folder := named.folder(scheme)) is not None:
            task = _json(folder / file).get("task")
            return [task] if task in TASKS else []
    return _by_scheme(named, [name for name, row in TASKS.items() if named.scheme in row.models])


def _of_student(reference: str) -> list[str]:
    named = Reference.parse(reference)
    students = [name for name, row in TASKS.items() if named.scheme in row.students]
    # hf: of a task whose students it cannot be: who makes them says so.
    models = [name for name, row in TASKS.items() if named.scheme in row.models]
    return _by_scheme(named, students if len(models) < 2 else models)


def _by_scheme(named: Reference, knowing: list[str]) -> list[str]:
    if len(knowing) < 2:
        return knowing
    path = Path(named.rest or "")
    config = _json(path if path.suffix == ".json" else path / "config.json")
    claiming = [name for name in knowing if config and _signs(name).of_config(config)]
    return claiming or knowing


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
            if len(claims) > 1:  # what is written beside images, and beside sounds: captions, boxes, transcripts
                claims = {name: sign for name, sign in claims.items() if not TASKS[name].beside}
        elif named.scheme == "hf":
            features = _features(expanded(named.rest))
            claims = {name: sign for name in knowing if (sign := _signs(name).of_features(features))}
        else:
            columns = header_of(named.rest, named.scheme)
            claims = {name: sign for name in knowing if (sign := _signs(name).of_columns(columns))}
            shared = [name for name, sign in claims.items() if list(claims.values()).count(sign) > 1]
            if shared:  # a column of paths: of what, their suffixes tell
                suffixes = sorted({Path(cell).suffix.lower() for cell in first_cells(named.rest, named.scheme)})
                told = [name for name in shared if _signs(name).of_suffixes(suffixes)]
                claims = {name: sign for name, sign in claims.items() if name in told or not (told and name in shared)}
    return claims


def _signs(name: str) -> Any:
    return importlib.import_module(TASKS[name].signs)


def _json(path: Path) -> dict[str, Any]:
    with suppress(KdcError, OSError):
        values = json_value(read_text(path, most=MOST_BYTES), str(path))
        return values if isinstance(values, dict) else {}
    return {}


def _suffixes(root: Path) -> Iterator[str]:
    """Those of the first files in a folder, at any depth; links are followed, and no folder is entered twice."""
    files = (name for name in _files(root) if not name.startswith(".") and name != "classes.txt")
    for name in islice(files, LOOKED_AT):
        yield Path(name).suffix.lower()


def _files(root: Path) -> Iterator[str]:
    seen = set[tuple[int, int]]()
    for folder, folders, names in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from names


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
