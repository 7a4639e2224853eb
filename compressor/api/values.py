"""What callers give, in the many ways they may give it, as the one value that the rest of kdc takes."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.api.call import StrPath
from compressor.errors import KdcError
from compressor.references import DATA, TEACHERS

if TYPE_CHECKING:
    from compressor.schema.profile import Profile
    from compressor.schema.recipe import Recipe

__all__ = ["Assignments", "assignments", "optional_path", "path_of", "profile_of", "recipe_of", "several", "text_of"]

Assignments = Mapping[str, Any] | Sequence[str]
"""`{"optimizer.lr": 0.01}`, or `["optimizer.lr=0.01"]` as the command line takes it."""

if TYPE_CHECKING:
    RecipeLike = StrPath | Mapping[str, Any] | Recipe
    """A recipe's file, its keys and values, or what `Recipe` makes of them."""
    ProfileLike = StrPath | Profile
    """A profile's name, the path of its YAML, or what `load_profile` makes of it."""


def path_of(value: StrPath, keyword: str) -> Path:
    """Raises KdcError for what is empty, which as a path would mean the current folder, and for what is none."""
    try:
        text = os.fspath(value)
    except TypeError:
        raise KdcError(f"{keyword} is {value!r}, and is to be a path") from None
    if not text:
        raise KdcError(f"{keyword} is empty", 'the current folder is "."')
    return Path(text)


def optional_path(value: StrPath | None, keyword: str) -> Path | None:
    return None if value is None else path_of(value, keyword)


def text_of(value: str, keyword: str) -> str:
    """A reference: of a teacher or of data."""
    if not isinstance(value, str) or not value:
        forms = TEACHERS if keyword == "--teacher" else DATA
        raise KdcError(f"{keyword} is {value!r}, and is to be a text", f"one of {forms}")
    return value


def several(value: str | Sequence[str] | None, keyword: str) -> list[str]:
    """One text, some, or none, as a list."""
    texts = [value] if isinstance(value, str) else list(value or ())
    for text in texts:
        if not isinstance(text, str) or not text:
            raise KdcError(f"{keyword} holds {text!r}, and is to be a text or some of them")
    return texts


def assignments(value: Assignments | None) -> list[str]:
    """Each as "key.path=value", whose value is YAML."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [f"{key}={_yaml(key, item)}" for key, item in value.items()]
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise KdcError(f"set is {value!r}", 'a mapping, {"optimizer.lr": 0.01}, or a list, ["optimizer.lr=0.01"]')
    return list(value)


def _yaml(key: str, value: object) -> str:
    """JSON, which is YAML."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise KdcError(f"set: {key} is {value!r}, which cannot be written as YAML") from None


def recipe_of(value: "RecipeLike | None") -> Path | Mapping[str, Any] | None:
    """A recipe's file, or its keys and values; those of a recipe of kdc's own, by its name."""
    from compressor.distill.regimes import BY_NAME, built_in
    from compressor.schema.recipe import Recipe

    if isinstance(value, Recipe):
        return value.model_dump(mode="json")
    if value is None or isinstance(value, Mapping):
        return value
    path = path_of(value, "recipe")
    return built_in(str(path)) if str(path) in BY_NAME and not path.exists() else path


def profile_of(value: "ProfileLike", sets: Sequence[str] = ()) -> "Profile":
    """The profile of that name, in that file, or as it is, with `sets` laid over it."""
    from compressor.profiles import load_profile, with_overrides
    from compressor.schema.profile import Profile

    if isinstance(value, Profile):
        return with_overrides(value, sets)
    if not isinstance(value, str):  # a path, whatever its name looks like
        value = os.path.join(".", path_of(value, "profile"))  # noqa: PTH118  (Path drops the dot)
    elif not value:
        raise KdcError("profile is empty", "a profile's name, or the path of its YAML")
    return load_profile(value, sets)
