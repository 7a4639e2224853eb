"""The builder of a runtime, which its row in `runtimes` names: modules are imported when something is exported."""

import importlib

from compressor.export.base import Builder
from compressor.runtimes import RUNTIMES

__all__ = ["builder_of"]


def builder_of(runtime: str) -> Builder:
    """The builder of a runtime of the table."""
    module, _, name = RUNTIMES[runtime].builder.partition(":")
    builder = getattr(importlib.import_module(module), name)
    assert isinstance(builder, Builder), RUNTIMES[runtime].builder
    return builder
