"""What a bundle and a session say of themselves, whatever the task."""

from pathlib import Path

from compressor.files.reading import JSON_BYTES, json_value, read_bytes
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.language.bundle import LanguageBundle
from compressor.schema.language.measurement import LanguageMeasurement
from compressor.schema.measurement import Measurement
from compressor.schema.preprocess import LanguagePreprocess

__all__ = ["read_manifest", "read_session"]


def read_manifest(path: Path) -> Bundle | LanguageBundle:
    """bundle.json; raises KdcError."""
    return read_json(path, LanguageBundle) if _of_language(path) else read_json(path, Bundle)


def read_session(path: Path) -> Measurement | LanguageMeasurement:
    """measurement.json; raises KdcError."""
    return read_json(path, LanguageMeasurement) if _of_language(path) else read_json(path, Measurement)


def _of_language(path: Path) -> bool:
    """Whether it says so; what is no such file at all is for whoever reads it next."""
    if not path.is_file():
        return False
    values = json_value(read_bytes(path, most=JSON_BYTES), str(path))
    return isinstance(values, dict) and values.get("task") == LanguagePreprocess.task
