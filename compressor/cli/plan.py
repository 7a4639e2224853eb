"""--plan: what a command would do, shown in its place."""

import json
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from compressor.api import CompletionPlanResult, PlanResult

__all__ = ["show_plan"]


def show_plan(done: "PlanResult | CompletionPlanResult", as_json: bool) -> NoReturn:
    """The exit code says whether anything that can be checked now would stop the command, or the export after it."""
    from compressor.terminal.console import show_json, show_result

    if as_json:
        show_json(json.dumps(done.to_dict(), indent=2))
    else:
        show_result(done.text)
    raise typer.Exit(done.exit_code)
