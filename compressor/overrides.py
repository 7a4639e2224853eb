"""Settings as people write them: YAML files read safely, and `--set key.path=value` laid over them."""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from compressor.errors import KdcError, os_error

__all__ = ["apply_overrides", "read_yaml"]

SPELLING = "write it as key.path=value, e.g. --set budget.p90_ms=20 or --set losses.0.weight=0.5"


class _Loader(yaml.SafeLoader):
    """SafeLoader, where a key that stands twice is an error, an unknown tag is refused, and 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            # "<<" merges a mapping into this one; it may stand beside the keys that it brings.
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key_node.value} stands twice in one mapping", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _refuse_tag(loader: _Loader, node: yaml.Node) -> None:
    tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
    raise yaml.constructor.ConstructorError(
        None, None, f"the tag {tag} is refused: these files hold plain values, never code", node.start_mark
    )


_Loader.add_constructor(None, _refuse_tag)
# YAML 1.1 reads 1e-3 as text, since it has no point; nobody means that. Implicit resolvers are tried in order.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _load(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise KdcError(f"{where}{place}: {error.problem or error.context or 'not YAML'}") from None
    except yaml.reader.ReaderError as error:
        raise KdcError(f"{where}: not YAML: the character at position {error.position} is not allowed") from None
    except (ValueError, yaml.YAMLError) as error:  # e.g. the date 2024-13-45
        raise KdcError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise KdcError(f"{where}: nested too deeply") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file at `path`; raises KdcError that names the line where something is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise KdcError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise KdcError(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise os_error(error, f"reading {path}") from error
    values = _load(text, str(path))
    if values is None:
        raise KdcError(f"{path} is empty: expected a mapping of keys to values")
    if not isinstance(values, dict):
        raise KdcError(f"{path}: expected a mapping of keys to values, found {_kind(values)}")
    return values


def apply_overrides(values: Mapping[str, Any], assignments: Sequence[str], where: str) -> dict[str, Any]:
    """A copy of `values` with each `key.path=value` of `assignments` set; values are read as YAML.

    Missing mappings on the way are created. A number in the path indexes a list. `where` opens every error message.
    """
    result = copy.deepcopy(dict(values))
    done: dict[str, str] = {}
    for assignment in assignments:
        key, text = _split(assignment, where)
        if done.setdefault(key, text) != text:
            raise KdcError(
                f"{where}: --set gives {key} twice, as {done[key]} and as {text}",
                f"keep one of them: --set {key}={text}",
            )
        _set(result, key, _load(text, f"{where}: --set {assignment}"), where)
    return result


def _split(assignment: str, where: str) -> tuple[str, str]:
    key, equals, text = assignment.partition("=")
    key, text = key.strip(), text.strip()
    if not equals or not all(key.split(".")) or any(letter.isspace() for letter in key):
        raise KdcError(f"{where}: --set {assignment!r} is not an assignment", SPELLING)
    if not text:
        raise KdcError(f"{where}: --set {key}= gives no value", f"to clear the key, write --set {key}=null")
    return key, text


def _set(root: dict[str, Any], key: str, value: Any, where: str) -> None:
    parts = key.split(".")
    here: Any = root
    for depth, part in enumerate(parts):
        place = ".".join(parts[:depth])
        last = depth == len(parts) - 1
        if isinstance(here, list):
            index: Any = _index(here, part, place, key, where)
        elif isinstance(here, dict):
            index = part
            if not last and here.get(part) is None:
                here[part] = {}
        else:
            raise KdcError(
                f"{where}: --set {key}: {place} is {here!r}, which has no keys inside", f"set it whole: --set {place}=…"
            )
        if last:
            here[index] = value
        else:
            here = here[index]


def _index(items: list[Any], part: str, place: str, key: str, where: str) -> int:
    permitted = f"0 to {len(items) - 1}" if items else "none, for it is empty"
    if not (part.isascii() and part.isdigit()):
        raise KdcError(
            f"{where}: --set {key}: {place} is a list, and {part} is not an index of it (permitted: {permitted})",
            SPELLING,
        )
    if int(part) >= len(items):
        raise KdcError(
            f"{where}: --set {key}: {place} has {len(items)} entries, so there is no {part} (permitted: {permitted})",
            f"to change its length, set it whole: --set {place}=[…]",
        )
    return int(part)


def _kind(value: object) -> str:
    return {"list": "a list", "str": "text", "int": "a number", "float": "a number", "bool": "true or false"}.get(
        type(value).__name__, type(value).__name__
    )
