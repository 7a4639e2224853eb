"""Language models for devices: a folder of transformers -> a folder of each runtime that generates text."""

import importlib
import shutil
from pathlib import Path

from compressor.errors import KdcError, needs, os_error
from compressor.export.bundle.sizes import weight_bytes
from compressor.export.language.base import LanguageArtefact, LanguageBuilder, require_tokens
from compressor.files.atomic import temporary_beside
from compressor.progress import Progress
from compressor.runtimes import RUNTIMES, Runtime, runtime_for

__all__ = ["LanguageArtefact", "LanguageBuilder", "build", "language_builder_of", "require_generating"]


def require_generating(runtime: str, precision: str) -> Runtime:
    """The row of a runtime that generates text in this precision; raises KdcError where it does not."""
    row = runtime_for(runtime, "an export of a language model")
    able = ", ".join(f"{name} ({', '.join(each.precisions)})" for name, each in RUNTIMES.items() if each.generates)
    if not row.generates:
        hint = f"{row.generator} does" if row.generator else ""
        raise KdcError(f"{runtime} generates no text, and the model is a language model; permitted: {able}", hint)
    if precision not in row.precisions:
        raise KdcError(f"unknown precision {precision} of runtime {runtime}; permitted: {able}")
    return row


def language_builder_of(runtime: str) -> LanguageBuilder:
    """The builder of a runtime of the table that generates text."""
    module, _, name = RUNTIMES[runtime].builder.partition(":")
    builder = getattr(importlib.import_module(module), name)
    assert isinstance(builder, LanguageBuilder), RUNTIMES[runtime].builder
    return builder


def build(
    model_folder: Path, runtime: str, precision: str, out: Path, *, max_length: int, progress: Progress
) -> LanguageArtefact:
    """A language model as a runtime takes it.

    Args:
        model_folder: config.json, weights and tokenizer as transformers reads them
            (`tasks.causal_lm.shipping.transformers_folder`).
        runtime: a row of `RUNTIMES` that generates text.
        precision: of its weights; the cache of keys and values stays in float32.
        out: a new folder, which appears whole or not at all.
        max_length: tokens of the longest block that it is to be scored on.
        progress: is told what is being made.

    Returns:
        The folder, and how it was made.

    Raises:
        KdcError: the runtime is missing (exit 4), does not know the architecture, takes fewer tokens than `max_length`,
            or reads texts as other tokens than the model's tokenizer does.
    """
    row = require_generating(runtime, precision)
    for module in (*row.exports_with, *(row.quantizes_with if precision.startswith("int") else ())):
        needs(module, row.export_install or row.install, f"an export to {runtime}")
    if out.exists() or out.is_symlink():
        raise KdcError(f"{out} exists already", "choose another folder")
    builder = language_builder_of(runtime)
    temporary = temporary_beside(out)
    progress.at(f"{runtime} {precision}", 0, 1)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        made = builder.convert(model_folder, precision, temporary)
        most = builder.limit(temporary)
        if most < max_length:
            raise KdcError(f"{runtime} takes {most} tokens of this model, fewer than the {max_length} of a block")
        require_tokens(model_folder, builder.encoder(temporary), runtime)
        weights = weight_bytes(builder.constants(temporary))
        temporary.rename(out)
    except OSError as error:
        raise os_error(error, f"writing {out}") from error
    finally:
        progress.end()
        shutil.rmtree(temporary, ignore_errors=True)
    return LanguageArtefact(out, made, weights)
