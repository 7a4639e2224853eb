"""What every noun shares: frozen, strict pydantic models, and errors that are written for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from compressor.errors import KdcError, did_you_mean
from compressor.files.atomic import write_text
from compressor.files.reading import JSON_BYTES, json_value, read_bytes
from compressor.terminal.printable import in_short

__all__ = [
    "Noun",
    "flat",
    "parse",
    "read_json",
    "write_json",
]


class Noun(BaseModel):
    """A value that lies on disk: immutable, and strict about keys that it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        serialize_by_alias=True,
        # With any limit pydantic looks into a text, and so refuses half a character ("\ud800" in JSON), which could
        # not be written again.
        str_max_length=JSON_BYTES,
    )

    @classmethod
    def made_anew(cls, path: Path) -> str:
        """The hint where what lies at `path` is not as this kdc writes it: what makes it anew."""
        return ""

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: object, info: ValidationInfo) -> object:
        """pydantic would read `threads: true` as 1."""
        if isinstance(value, bool) and not _names_bool(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("true and false are not permitted here")
        return value


def _names_bool(annotation: Any) -> bool:
    return annotation in (bool, Any, object) or any(_names_bool(inner) for inner in get_args(annotation))


N = TypeVar("N", bound=Noun)


def parse(noun: type[N], values: object, where: str) -> N:
    """`values` as a `noun`; raises KdcError that names `where`, the key, what is wrong and what is permitted."""
    if not isinstance(values, Mapping):
        raise KdcError(f"{where}: expected a mapping of keys to values, found {type(values).__name__}")
    try:
        return noun.model_validate(values)
    except KdcError as error:  # of a validator that knows what to do next
        raise KdcError(f"{where}: {error.message}", error.hint) from None
    except ValidationError as error:
        # An unknown key first: a misspelling usually also makes another key missing, and it is the cause.
        items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        lines = [_for_people(noun, dict(item)) for item in items]
        suffix = f" (and {len(lines) - 1} more: {'; '.join(lines[1:4])})" if len(lines) > 1 else ""
        raise KdcError(f"{where}: {lines[0]}{suffix}") from None


def _for_people(noun: type[Noun], item: dict[str, Any]) -> str:
    # What stands in brackets tells branches of a union apart, and is no key.
    key = ".".join(str(part) for part in item["loc"] if not str(part).startswith("["))
    if item["type"] == "extra_forbidden":
        *parents, last = item["loc"]
        known = _fields_at(noun, parents)
        near = did_you_mean(str(last), known)
        full = near.replace("did you mean ", "did you mean " + "".join(f"{part}." for part in parents))
        return f"unknown key {key}{full or '; known here: ' + ', '.join(sorted(known))}"
    if item["type"] == "missing":
        return f"key {key} is missing"
    text = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    said = f"{text[0].lower()}{text[1:]}"
    return f"{key}: {said}, found {in_short(item.get('input'))}" if key else said


def _fields_at(noun: type[Noun], path: list[Any]) -> list[str]:
    """The keys that the model which stands at `path` inside `noun` knows."""
    model: Any = noun
    for part in path:
        if isinstance(part, str) and hasattr(model, "model_fields") and part in model.model_fields:
            model = model.model_fields[part].annotation
        model = _model_inside(model)
    return [field.alias or name for name, field in getattr(model, "model_fields", {}).items()]


def _model_inside(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    for inner in get_args(annotation):
        model = _model_inside(inner)
        if hasattr(model, "model_fields"):
            return model
    return annotation


def read_json(path: Path, noun: type[N]) -> N:
    """The `noun` in the JSON file at `path`; raises KdcError where it is missing, no JSON, or not such a noun."""
    if not path.exists():
        raise KdcError(f"{path} does not exist")
    values = json_value(read_bytes(path, most=JSON_BYTES), str(path))
    try:
        return parse(noun, values, str(path))
    except KdcError as error:
        raise KdcError(error.message, error.hint or noun.made_anew(path)) from None


def write_json(path: Path, value: Noun) -> None:
    """Write a noun to `path` as indented JSON: all of it, or nothing."""
    write_text(path, value.model_dump_json(indent=2) + "\n")


def flat(values: object, prefix: str = "") -> dict[str, object]:
    """Nested mappings as one: `{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    if isinstance(values, Mapping):
        rows = [flat(value, f"{prefix}{key}.") for key, value in values.items()]
        return {key: value for row in rows for key, value in row.items()}
    return {prefix.rstrip("."): values}
