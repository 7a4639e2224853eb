"""What tells that data, or a model, is of texts: looked at before any task is known."""

from collections.abc import Mapping, Sequence
from typing import Any

from compressor.schema.student import Columns
from compressor.tasks.text_classification.sources.columns import has_texts

__all__ = ["of_columns", "of_config", "of_features", "of_suffixes"]


def of_suffixes(suffixes: Sequence[str]) -> str:
    """Of the files in a folder."""
    return ".txt files" if ".txt" in suffixes else ""


def of_columns(columns: Sequence[str]) -> str:
    """Of a table."""
    names = has_texts(columns, Columns())
    return f"column {names}" if names else ""


def of_features(features: Mapping[str, str]) -> str:
    """Of a data set that says what its columns hold."""
    return of_columns([name for name, kind in features.items() if kind == "string"])


def of_config(config: Mapping[str, Any]) -> str:
    """Of a model's config.json."""
    # Those of images say their size, and those of speech, which have a vocabulary of letters, their convolutions.
    other = "image_size" in config or "conv_dim" in config
    return "vocab_size" if "vocab_size" in config and not other else ""
