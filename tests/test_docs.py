"""The README and docs/: what is shown there exists, and what is made from the code is up to date."""

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from compressor import api, losses
from compressor.cli import app as cli
from compressor.schema.recipe import Recipe
from tests.kit import version_of

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "EXPERIMENTS.md", *sorted(DOCS.rglob("*.md"))]
SHOWN = [page for page in PAGES if page.parent.name != "experiments"]  # what was typed on a day stays as it was


def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tree_in_the_architecture_is_the_tree() -> None:
    """All of the package's folders and top-level modules are named, and all that is named is there."""
    tree = (DOCS / "architecture.md").read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    package, named, parents = ROOT / "compressor", set[Path](), [ROOT]
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        words = re.findall(r"[\w/]+(?:/|\.py)(?= |;|:|,|$)", line)
        here = parents[depth]
        for word in words:
            places = [place / word for place in (here, here / line.split()[0]) if (place / word).exists()]
            assert places or word == "BUNDLE/best/", line
            named.update(places)
        if words and line.split()[0].endswith("/"):
            parents[depth + 1 :] = [here / line.split()[0]]
    folders = {path.parent for path in package.rglob("__init__.py")} - {package}
    top = {path for path in package.glob("*.py") if not path.name.startswith("__")}
    near = {path for path in folders if package in (path.parent, path.parent.parent)}
    assert sorted((near | top) - named) == [], "what is new has a line"


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_generated_pages_are_up_to_date() -> None:
    if version_of("typer") < (0, 29):
        pytest.skip("typer below 0.29 spells arguments and defaults otherwise")
    stale = generate().drifted()
    assert not stale, f"{', '.join(stale)} differ from the code: run python docs/generate.py"


def test_every_noun_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "schema.md").read_text(encoding="utf-8")
    nouns = {
        f"### {match[1]} {{#{path.stem}-{match[1].lower()}}}"
        for path in (ROOT / "compressor" / "schema").glob("*.py")
        for match in re.finditer(r"(?m)^class (\w+)\(Noun", path.read_text(encoding="utf-8"))
    }
    assert len(nouns) > 40
    assert nouns <= set(page.splitlines())


@pytest.mark.parametrize("name", ["recipe", "profile"])
def test_every_key_that_people_write_says_what_it_means(name: str) -> None:
    module = generate()
    meanings = module._meanings((ROOT / "compressor" / "schema" / f"{name}.py").read_text(encoding="utf-8"))
    for noun in module._nouns_of(importlib.import_module(f"compressor.schema.{name}")):
        assert set(noun.model_fields) == meanings[noun.__name__].keys(), noun.__name__


@pytest.mark.parametrize(
    ("annotation", "spelled"),
    [
        (int | None, "integer, or null"),
        (tuple[str, ...], "list of text"),
        (tuple[float, bool], "[number, true or false]"),
        (dict[str, int], "mapping of text to integer"),
        (Recipe, "[Recipe](#recipe-recipe)"),
        (Recipe.model_fields["mode"].annotation, "`offline`"),
    ],
)
def test_types_are_spelled_for_people(annotation: Any, spelled: str) -> None:
    assert generate()._spelled(annotation) == spelled


def test_bounds_and_defaults_are_spelled() -> None:
    page = generate().schema_page()
    assert "| `epochs` | integer, ≥ 1, ≤ 1,000,000 | `30` | Passes over the training data. |" in page
    assert "| `losses` | list of [LossTerm](#recipe-lossterm), at least 1 long | **required** | Their" in page


def commands_in(text: str) -> list[list[str]]:
    """The words of every command line of kdc in a block of shell, its continuations joined."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.search(r"(?:^|\s|-m compressor )(?:kdc|python -m compressor) +([a-z].*)", line)
            if match:
                found += [shlex.split(part, comments=True) for part in re.split(r" && (?:kdc )?", match[1])]
    return found


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    group: Any = typer.main.get_command(cli.app)
    while hasattr(group, "commands"):
        name, *words = words
        assert name in group.commands, f"there is no command {name}"
        group = group.commands[name]
    return group, words


def test_the_workflow_is_shown_as_it_is() -> None:
    text = (ROOT / "examples" / "ci" / "github" / "kdc.yml").read_text(encoding="utf-8")
    shown = (DOCS / "ci.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    assert shown.strip() in re.sub(r"(?m)^ {6}", "", text)


@pytest.mark.parametrize("page", SHOWN, ids=ids)
def test_commands_that_are_shown_exist(page: Path) -> None:
    check_commands(commands_in(page.read_text(encoding="utf-8")))


def check_commands(commands: list[list[str]]) -> None:
    for words in commands:
        command, arguments = command_of(words)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.split("=")[0] for word in arguments if word.startswith("--")} <= known, words
        if "…" in arguments:
            continue
        wanted = [
            parameter for parameter in command.params if parameter.required and parameter.param_type_name == "option"
        ]
        assert all(set(parameter.opts) & set(arguments) for parameter in wanted), f"{words} lacks a required option"


def test_commands_are_found() -> None:
    assert len([words for page in SHOWN for words in commands_in(page.read_text(encoding="utf-8"))]) > 30
    assert commands_in("```sh\nkdc distill --data a \\\n    --out b   # why\n```") == [
        ["distill", "--data", "a", "--out", "b"]
    ]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    """Also where mkdocs does not look: between the README and docs/."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        to = (page.parent / name).resolve() if name else page
        assert to.exists(), f"{ids(page)}: {target}"
        if anchor:
            assert anchor in anchors(to), f"{ids(page)}: {target}"


def anchors(page: Path) -> set[str]:
    found = set()
    for title in re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8")):
        explicit = re.search(r"\{#([\w-]+)\}", title)
        found.add(explicit[1] if explicit else re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-"))
    return found


def test_every_page_is_in_the_menu() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), yaml.SafeLoader)

    def leaves(nav: Any) -> set[str]:
        if isinstance(nav, str):
            return {nav}
        return {page for item in (nav.values() if isinstance(nav, dict) else nav) for page in leaves(item)}

    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    listed = {name for name in pages if name.startswith("experiments/") and name != "experiments/index.md"}
    assert leaves(config["nav"]) == pages - listed


def test_every_cited_pitfall_is_on_the_page() -> None:
    titles = set(re.findall(r"(?m)^### (.+)$", (DOCS / "pitfalls.md").read_text(encoding="utf-8")))
    cited = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for text in re.findall(r'(?s)"""Pitfalls, (.*?)"""', path.read_text(encoding="utf-8")):
            cited.update(re.findall(r'^"([^"]+)"|(?<=and )"([^"]+)"', " ".join(text.split())))
    names = {one or other for one, other in cited}
    assert len(names) > 12
    assert names <= titles


def test_the_tree_shows_every_folder() -> None:
    tree = (DOCS / "architecture.md").read_text(encoding="utf-8").split("```text")[1].split("```")[0]
    shown = set(re.findall(r"([\w/]+/)(?=[ \n])", tree))
    package = {f"{path.parent.name}/" for path in (ROOT / "compressor").glob("*/__init__.py")}
    assert package <= shown
    distill = {f"{path.parent.name}/" for path in (ROOT / "compressor" / "distill").glob("*/__init__.py")}
    assert distill <= shown
    assert {f"{name}/" for name in ("profiles", "targets", "examples", "benchmarks", "tests", "docs")} <= shown
    modules = set(re.findall(r"\b\w+\.py\b", tree))
    assert modules <= {path.name for path in (ROOT / "compressor").rglob("*.py")}


def test_every_loss_is_in_a_table() -> None:
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert {name for name in losses.LOSSES if f"`{name}`" not in text} == set()


def test_make_knows_what_the_pages_name() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    named = {
        name for page in SHOWN for name in re.findall(r"(?m)(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"))
    }
    assert {"demo", "test", "docs"} <= named <= targets


@pytest.mark.parametrize(
    "file", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda file: file.stem
)
def test_issue_templates_are_forms(file: Path) -> None:
    form = yaml.safe_load(file.read_text(encoding="utf-8"))
    if file.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= form.keys()
    identities = [item["id"] for item in form["body"]]
    assert len(set(identities)) == len(identities) >= 3
    assert any(item.get("validations", {}).get("required") for item in form["body"])


def test_the_python_page_has_every_function_and_calls_them_rightly() -> None:
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(?m)^::: compressor\.api\.(\w+)$", text)) == set(api.__all__)
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call) and node.keywords]
    assert [ast.unparse(call.func) for call in calls] == [
        f"compressor.{name}" for name in ("teach", "distill", "export")
    ]
    for call in calls:
        assert isinstance(call.func, ast.Attribute)
        function = inspect.signature(getattr(api, call.func.attr))
        function.bind(*call.args, **{str(keyword.arg): None for keyword in call.keywords})
