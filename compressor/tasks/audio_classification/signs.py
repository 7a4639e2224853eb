"""What tells that data, or a model, is of sounds: looked at before any task is known."""

from collections.abc import Mapping, Sequence
from typing import Any

from compressor.tasks.audio_classification.reading import SUFFIXES
from compressor.tasks.audio_classification.sources.columns import AUDIO_COLUMNS

__all__ = ["of_columns", "of_config", "of_features", "of_suffixes"]


def of_suffixes(suffixes: Sequence[str]) -> str:
    """Of the files in a folder."""
    return next((f"{suffix} files" for suffix in suffixes if suffix in SUFFIXES), "")


def of_columns(columns: Sequence[str]) -> str:
    """Of a table."""
    return next((f"column {name}" for name in columns if name.strip().lower() in AUDIO_COLUMNS), "")


def of_features(features: Mapping[str, str]) -> str:
    """Of a data set that says what its columns hold."""
    return next((f"column {name}" for name, kind in features.items() if kind == "Audio"), "")


def of_config(config: Mapping[str, Any]) -> str:
    """Of a model's config.json."""
    kinds = [str(name) for name in config.get("architectures") or ()]
    named = next((name for name in kinds if "Audio" in name or "Wav2Vec2" in name or "Hubert" in name), "")
    known = ("wav2vec2", "hubert", "wavlm", "audio-spectrogram-transformer", "unispeech", "sew", "data2vec-audio")
    kind = str(config.get("model_type"))
    return named or (kind if kind in known else "")
