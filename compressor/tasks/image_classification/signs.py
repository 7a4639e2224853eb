"""What tells that data, or a model, is of images: looked at before any task is known."""

from collections.abc import Mapping, Sequence
from typing import Any

from compressor.tasks.image_classification.preprocessing import SUFFIXES
from compressor.tasks.image_classification.sources.tables import IMAGE_COLUMNS

__all__ = ["of_columns", "of_config", "of_features", "of_file", "of_suffixes"]


def of_suffixes(suffixes: Sequence[str]) -> str:
    """Of the files in a folder."""
    return next((f"{suffix} files" for suffix in suffixes if suffix in SUFFIXES), "")


def of_columns(columns: Sequence[str]) -> str:
    """Of a table."""
    return next((f"column {name}" for name in columns if name.strip().lower() in IMAGE_COLUMNS), "")


def of_features(features: Mapping[str, str]) -> str:
    """Of a data set that says what its columns hold."""
    return next((f"column {name}" for name, kind in features.items() if kind == "Image"), "")


def of_config(config: Mapping[str, Any]) -> str:
    """Of a model's config.json."""
    kinds = [str(name) for name in config.get("architectures") or ()]
    named = next((name for name in kinds if "Image" in name or "Timm" in name), "")
    if named or config.get("model_type") == "timm_wrapper":
        return named or "timm_wrapper"
    return next((key for key in ("image_size", "num_channels", "pretrained_cfg") if key in config), "")


def of_file(name: str) -> str:
    """Of a file that is a model."""
    return ""
