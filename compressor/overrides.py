"""Settings as people write them: YAML files read safely, and `--set key.path=value` laid over them."""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from compressor.errors import KdcError
from compressor.files.reading import read_settings
from compressor.terminal.printable import in_short

__all__ = ["apply_overrides", "read_yaml", "yaml_mapping", "yaml_text"]

_Refused = yaml.constructor.ConstructorError
SPELLING = "write it as key.path=value, e.g. --set budget.p90_ms=20 or --set losses.0.weight=0.5"


MOST_BYTES = 256_000
MOST_NODES = 20_000
DEEPEST = 50
LONGEST_NUMBER = 60
"""A recipe or profile has a hundredth of these. Beyond them YAML's own means (anchors in anchors, `1:1:1:…`, which is
a number to the base 60) make gigabytes of a line."""


class _Loader(yaml.SafeLoader):
    """SafeLoader, where a key that stands twice is an error, an unknown tag is refused, and 1e-3 is a number.

    What it makes is bounded: an alias counts for all that it stands for."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._nodes = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # (types-PyYAML leaves it out)
        before = self._nodes
        self._nodes += 1
        self._depth += 1
        if self._depth > DEEPEST:
            raise _Refused(None, None, f"nested deeper than {DEEPEST} levels", event.start_mark)
        alias = isinstance(event, yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias:
            if id(node) not in self._sizes:
                raise _Refused(None, None, f"*{event.anchor} stands for what it is itself in", event.start_mark)
            self._nodes += self._sizes[id(node)]
        else:
            self._sizes[id(node)] = self._nodes - before
        if self._nodes > MOST_NODES:
            raise _Refused(None, None, f"holds more than {MOST_NODES:,} values, aliases counted out", event.start_mark)
        return node

    def construct_number(self, node: yaml.ScalarNode) -> float:
        if len(node.value) > LONGEST_NUMBER:
            raise _Refused(None, None, f"a number of more than {LONGEST_NUMBER} characters", node.start_mark)
        value = self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)
        return cast(float, value)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            # "<<" merges a mapping into this one; it may stand beside the keys that it brings.
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise _Refused(None, None, f"key {key_node.value} stands twice in one mapping", key_node.start_mark)
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _refuse_tag(loader: _Loader, node: yaml.Node) -> None:
    tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
    raise _Refused(None, None, f"the tag {tag} is refused: these files hold plain values, never code", node.start_mark)


_Loader.add_constructor(None, _refuse_tag)
for _kind_of_number in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind_of_number}", _Loader.construct_number)
# YAML 1.1 reads 1e-3 as text, since it has no point; nobody means that. Implicit resolvers are tried in order.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _load(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise KdcError(f"{where}{position}: {error.problem or error.context or 'not YAML'}") from None
    except yaml.reader.ReaderError as error:
        raise KdcError(f"{where}: not YAML: the character at position {error.position} is not allowed") from None
    except (
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        TypeError,
        yaml.YAMLError,
    ) as error:  # the date 2024-13-45, "!!int x"
        raise KdcError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise KdcError(f"{where}: nested too deeply") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file at `path`; raises KdcError that names the line where something is wrong."""
    return yaml_mapping(yaml_text(path), str(path))


def yaml_text(path: Path) -> str:
    """The text of a YAML file, or of a pipe, which can be read only once; raises KdcError."""
    try:
        return read_settings(path, most=MOST_BYTES)
    except KdcError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise KdcError(f"{path} does not exist") from None
        raise


def yaml_mapping(text: str, where: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; raises KdcError that names `where` and the line."""
    values = _load(text, where)
    if values is None:
        raise KdcError(f"{where} is empty: expected a mapping of keys to values")
    if not isinstance(values, dict):
        raise KdcError(f"{where}: expected a mapping of keys to values, found {_kind(values)}")
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
                f"{where}: --set gives {key} twice, as {_cut(done[key])} and as {_cut(text)}",
                f"keep one of them: --set {key}={_cut(text)}",
            )
        _set(result, key, _load(text, f"{where}: --set {_cut(assignment)}"), where)
    return result


def _split(assignment: str, where: str) -> tuple[str, str]:
    key, equals, text = assignment.partition("=")
    key, text = key.strip(), text.strip()
    if not equals or not all(key.split(".")) or any(letter.isspace() for letter in key):
        raise KdcError(f"{where}: --set {in_short(assignment)} is not an assignment", SPELLING)
    if key.count(".") >= DEEPEST or len(text) > MOST_BYTES:
        raise KdcError(f"{where}: --set {key[:80]}… is deeper or longer than anything that can be set", SPELLING)
    if not text:
        raise KdcError(f"{where}: --set {key}= gives no value", f"to clear the key, write --set {key}=null")
    return key, text


def _cut(text: str) -> str:
    """Enough of what was typed to find it again."""
    return text if len(text) <= 200 else f"{text[:200]}…"


def _set(root: dict[str, Any], key: str, value: Any, where: str) -> None:
    parts = key.split(".")
    here: Any = root
    for depth, part in enumerate(parts):
        parent = ".".join(parts[:depth])
        last = depth == len(parts) - 1
        if isinstance(here, list):
            index: Any = _index(here, part, parent, key, where)
        elif isinstance(here, dict):
            index = part
            if not last and here.get(part) is None:
                here[part] = {}
        else:
            raise KdcError(
                f"{where}: --set {key}: {parent} is {in_short(here)}, which has no keys inside",
                f"set it whole: --set {parent}=…",
            )
        if last:
            here[index] = value
        else:
            here = here[index]


def _index(items: list[Any], part: str, parent: str, key: str, where: str) -> int:
    permitted = f"0 to {len(items) - 1}" if items else "none, for it is empty"
    if not (part.isascii() and part.isdigit()):
        raise KdcError(
            f"{where}: --set {key}: {parent} is a list, and {part} is not an index of it (permitted: {permitted})",
            SPELLING,
        )
    if len(part) > 9 or int(part) >= len(items):
        raise KdcError(
            f"{where}: --set {key}: {parent} has {len(items)} entries, so there is no {part} (permitted: {permitted})",
            f"to change its length, set it whole: --set {parent}=[…]",
        )
    return int(part)


def _kind(value: object) -> str:
    return {"list": "a list", "str": "text", "int": "a number", "float": "a number", "bool": "true or false"}.get(
        type(value).__name__, type(value).__name__
    )
