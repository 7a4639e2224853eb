"""Templates and what stands in them as it is: every page has the frame of layout.html, and the macros of parts.html."""

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from markupsafe import Markup

from compressor.report.html.text import shown

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["WORDS", "asset", "template"]

WORDS = {
    "pass": "The budget holds",
    "fail": "The budget does not hold",
    "inconclusive": "It cannot be told yet",
    "unmeasured": "It is not measured",
}


def asset(name: str) -> Markup:
    """A file of ours in this folder, as it is: nothing of a bundle is in it."""
    return Markup((resources.files(__package__) / name).read_text(encoding="utf-8"))


@lru_cache(maxsize=2)
def template(name: str, package: str = __package__) -> "Template":
    """The template `name` of a package, which may extend those of this one."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def read(asked: str) -> str:
        return (resources.files(package if asked == name else __package__) / asked).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["shown"] = shown
    return environment.get_template(name)
