"""What tells that data, or a model, is of a language model: looked at before any task is known."""

from collections.abc import Mapping, Sequence
from typing import Any

from compressor.errors import KdcError
from compressor.schema.student import Columns
from compressor.tasks.causal_lm.sources import form_of

__all__ = ["of_columns", "of_config", "of_features", "of_file", "of_suffixes"]


def of_suffixes(suffixes: Sequence[str]) -> str:
    """Of the files in a folder: texts there are taken for those of a classifier, unless a model or --task tells."""
    return ""


def of_columns(columns: Sequence[str]) -> str:
    """Of a table; one of labelled texts is for a classifier."""
    try:
        form = form_of(columns, Columns(), "")
    except KdcError:
        return ""
    labelled = {"label", "labels", "class", "category"} & {column.strip().lower() for column in columns}
    return "" if labelled else f"column {', '.join(form.values())}"


def of_features(features: Mapping[str, str]) -> str:
    """Of a data set that says what its columns hold."""
    return of_columns([*features])


def of_config(config: Mapping[str, Any]) -> str:
    """Of a model's config.json; one that names no head may be of this, too."""
    names = config.get("architectures")
    if not names:
        return "vocab_size" if "vocab_size" in config and "image_size" not in config else ""
    heads = [name for name in names if str(name).endswith(("ForCausalLM", "LMHeadModel"))]
    return str(heads[0]) if heads else ""


def of_file(name: str) -> str:
    """Of a file that is a model."""
    return ".gguf" if name.endswith(".gguf") else ""
