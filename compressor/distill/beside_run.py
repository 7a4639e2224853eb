"""Answers that nobody asked to keep: in RUN/answers until the run is finished, for all of its trainings, and a share of
the free disk at most."""

from dataclasses import replace
from pathlib import Path

from compressor.distill.host.resources import Resources
from compressor.distill.recipes import repeats_by_default
from compressor.distill.run_files import ANSWERS
from compressor.processes.team import as_first
from compressor.schema.student import Request

__all__ = ["answers_beside"]


def answers_beside(run: Path, request: Request, resources: Resources) -> Resources:
    """With answers in the folder of the run, where the user named neither a place nor the number of views."""
    asked = request.recipe.views.distinct is not None and not repeats_by_default(request)
    if asked or not resources.unnamed:
        return resources
    within = resources.within(run / ANSWERS)
    return replace(within, answers_budget=as_first(within.answers_budget))
