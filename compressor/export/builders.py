"""The builder of a runtime, which its row in `runtimes` names: modules are imported when something is exported."""

import importlib

from compressor.errors import KdcError
from compressor.export.base import Builder
from compressor.runtimes import RUNTIMES, of_classifiers

__all__ = ["builder_of"]


def builder_of(runtime: str) -> Builder:
    """The builder of a runtime of the table. Raises KdcError for those that run language models alone, which
    `export.language` builds for."""
    if RUNTIMES[runtime].generates:
        able = ", ".join(of_classifiers())
        raise KdcError(
            f"{runtime} generates text, and runs language models alone", f"a profile or --target with {able}"
        )
    module, _, name = RUNTIMES[runtime].builder.partition(":")
    builder = getattr(importlib.import_module(module), name)
    assert isinstance(builder, Builder), RUNTIMES[runtime].builder
    return builder
