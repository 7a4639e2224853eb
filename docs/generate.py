"""Writes docs/reference/ from the code, and the lists of experiments. A test says when they have drifted.

Run it as `python docs/generate.py`; `--check` writes nothing, and exits with 1 where a page differs.
"""

import ast
import contextlib
import importlib
import inspect
import io
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = ROOT / "docs" / "experiments"
COMMAND = "python docs/generate.py"
MADE = f"<!-- Made by `{COMMAND}`. Edits here are lost. -->\n"

# Schema modules in the order of the page, what people write first; others follow.
FIRST = (
    "recipe", "views", "profile", "student", "specialists", "predictions", "preprocess", "quantization", "bundle",
    "manifest", "measurement", "report", "doctor",
)  # fmt: skip


def commands_page() -> str:
    """Every command with its help, as a terminal of 100 columns shows it."""
    from compressor.cli.app import app

    command: Any = typer.main.get_command(app)
    parts = [
        MADE,
        "# Commands\n",
        f"The help of every command. `kdc COMMAND --help` prints the same.\n\n```text\n{_help(command)}```\n",
    ]
    for words in _names(command):
        parts.append(f"## kdc {' '.join(words)}\n\n```text\n{_help(command, *words)}```\n")
    return "\n".join(parts)


def _names(command: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    names = []
    for name, inner in command.commands.items():
        names += [(*before, name), *(_names(inner, (*before, name)) if hasattr(inner, "commands") else [])]
    return names


def _help(command: Any, *words: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), _columns("100"):
        command.main([*words, "--help"], prog_name="kdc", standalone_mode=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


@contextlib.contextmanager
def _columns(number: str) -> Iterator[None]:
    names = ("COLUMNS", "TERMINAL_WIDTH")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, number))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def schema_page() -> str:
    """Every noun: its keys, their types and bounds, defaults, meaning."""
    parts = [
        MADE,
        "# Schema\n",
        "What kdc reads and writes, key by key. Unknown keys are refused, with the nearest known one named. "
        "`null` is permitted only where a type says so. Recipe and profile are what people write; the others lie in "
        "the folders that kdc makes.\n",
    ]
    for module in _modules():
        name = _name(module.__name__)
        parts.append(f"## {name}.py {{#{name.replace('/', '-')}py}}\n\n{_prose(inspect.getdoc(module) or '')}\n")
        meanings = _meanings(Path(str(module.__file__)).read_text(encoding="utf-8"))
        for noun in _nouns_of(module):
            parts.append(_section(noun, meanings.get(noun.__name__, {})))
    return "\n".join(parts)


def _modules() -> list[types.ModuleType]:
    schema = ROOT / "compressor" / "schema"
    names = sorted(path.relative_to(schema).with_suffix("").as_posix() for path in schema.rglob("*.py"))
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    modules = [
        importlib.import_module(f"compressor.schema.{name.replace('/', '.')}")
        for name in names
        if name != "base" and not name.endswith("__init__")
    ]
    return [module for module in modules if _nouns_of(module)]


def _name(module: str) -> str:
    """Of a module, below schema/: its path without its suffix."""
    return module.removeprefix("compressor.schema.").replace(".", "/")


def _nouns_of(module: types.ModuleType) -> list[Any]:
    """Those of the module: the noun that the module is named for first, then in the order of the source."""
    from compressor.schema.base import Noun

    nouns = [
        noun
        for noun in vars(module).values()
        if isinstance(noun, type) and issubclass(noun, Noun) and noun.__module__ == module.__name__
        if "[" not in noun.__name__  # Fact[str] is Fact
    ]
    named = module.__name__.rsplit(".", 1)[1]
    return sorted(nouns, key=lambda noun: noun.__name__.lower() != named)


def _section(noun: Any, meanings: dict[str, str]) -> str:
    fields = {field.alias or name: (name, field) for name, field in noun.model_fields.items()}
    heads = ["key", "type", "default", *(["meaning"] if meanings else [])]
    rows = [heads, ["---"] * len(heads)]
    for key, (name, field) in fields.items():
        row = [f"`{key}`", _cell(_spelled(field.annotation, field.metadata)), _cell(_default(field))]
        rows.append([*row, *([_cell(meanings.get(name, ""))] if meanings else [])])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"### {noun.__name__} {{#{_anchor(noun)}}}\n\n{_prose(inspect.getdoc(noun) or '')}\n\n{table}\n"


def _anchor(noun: Any) -> str:
    """Two modules may have a noun of one name."""
    return f"{_name(noun.__module__).replace('/', '-')}-{noun.__name__.lower()}"


def _prose(text: str) -> str:
    """A docstring as Markdown. What looks like HTML or a link, outside code, is text."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("[", "\\[") for part in parts[::2]]
    return "`".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _meanings(source: str) -> dict[str, dict[str, str]]:
    """Class -> field -> the text that stands below the field."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                text = inspect.cleandoc(str(ast.literal_eval(below.value)))
                found.setdefault(node.name, {})[field.target.id] = text
    return found


PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null", object: "anything"}


def _spelled(annotation: Any, metadata: Any = ()) -> str:
    """A type as people read it, with its bounds: "number, > 0, ≤ 100, or null"."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _spelled(inner[0], [*inner[1:], *metadata])
    if origin in (Union, types.UnionType):
        spelled = [_spelled(part) for part in inner if part is not type(None)]
        text = " or ".join(spelled) + "".join(_bounds(metadata))
        return f"{text}, or null" if type(None) in inner else text
    return _named(annotation, origin, inner) + "".join(_bounds(metadata))


def _named(annotation: Any, origin: Any, inner: tuple[Any, ...]) -> str:
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"[{', '.join(_spelled(part) for part in inner)}]"
    if origin in (tuple, list):
        return f"list of {_spelled(inner[0])}"
    if getattr(origin, "__name__", "") in ("dict", "Mapping"):
        return f"mapping of {_spelled(inner[0])} to {_spelled(inner[1])}"
    if annotation in PLAIN:
        return PLAIN[annotation]
    # A generic noun, as Fact[str]: the noun, and what its value is.
    generic = getattr(annotation, "__pydantic_generic_metadata__", {}) or {}
    if generic.get("origin"):
        noun = generic["origin"]
        return f"[{noun.__name__}](#{_anchor(noun)}) of {_spelled(generic['args'][0])}"
    name = getattr(annotation, "__name__", str(annotation))
    return f"[{name}](#{_anchor(annotation)})" if hasattr(annotation, "model_fields") else name


def _bounds(metadata: Any) -> list[str]:
    said = []
    for item in [part for whole in metadata for part in getattr(whole, "metadata", None) or [whole]]:
        for name, text in (("gt", "> "), ("ge", "≥ "), ("lt", "< "), ("le", "≤ "), ("pattern", "pattern ")):
            value = getattr(item, name, None)
            if value is not None:
                said.append(f", {text}{f'`{value}`' if name == 'pattern' else _number(value)}")
        if getattr(item, "min_length", None) is not None:
            said.append(f", at least {item.min_length} long")
        if getattr(item, "max_length", None) is not None:
            said.append(f", at most {item.max_length} long")
    return said


def _number(value: float) -> str:
    if abs(value) >= 1e9 and value != 2**31:
        return f"{value:g}"
    return f"{int(value):,}" if float(value).is_integer() else str(value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or hasattr(type(value), "model_fields"):
        return "its own defaults"
    return f"`{_value(value)}`"


def _value(value: Any) -> str:
    """As YAML spells it."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) if value != "" else '""'


def report_schema() -> str:
    """What `kdc report --schema` prints."""
    from compressor.report import report_schema

    return report_schema()


def experiments(prefix: str) -> str:
    """A line an experiment, the newest first; `prefix`: where the pages lie from there."""
    rows = []
    for page in sorted(EXPERIMENTS.glob("*.md")):
        match = re.match(r"# (.+)\n\nMeasured (\d{4}-\d\d-\d\d)\.", page.read_text(encoding="utf-8"))
        if match:
            rows.append((match[2], f"| {match[2]} | [{match[1]}]({prefix}{page.name}) |"))
    rows.sort(key=lambda row: row[0], reverse=True)
    head = [MADE, "# Experiments", "", MACHINE, "", "| date | what |", "| --- | --- |"]
    return "\n".join([*head, *(line for _, line in rows), ""])


MACHINE = """What was measured, when, with which command; results that we do not like stay here too. Unless said
otherwise: one x86-64 virtual machine, 2 cores (AMD EPYC, AVX2, no AVX-512, no bf16), 24 GiB, no GPU; Python 3.11,
torch 2.14.1, timm 1.0.31, onnxruntime 1.32.0, openvino 2026.4.1. Intervals are 95 %."""

PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/commands.md": commands_page,
    "docs/reference/schema.md": schema_page,
    "docs/reference/report.schema.json": report_schema,
    "docs/experiments/index.md": lambda: experiments(""),
    "EXPERIMENTS.md": lambda: experiments("docs/experiments/"),
}


def drifted() -> list[str]:
    """The pages that differ from what would be written now."""
    found = []
    for name, page in PAGES.items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != page():
            found.append(name)
    return found


def main() -> None:
    """Write the pages; with --check, compare only."""
    if sys.argv[1:] == ["--check"]:
        names = drifted()
        raise SystemExit(f"{', '.join(names)} differ from what they are made from; {COMMAND}" if names else 0)
    for name, page in PAGES.items():
        (ROOT / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
