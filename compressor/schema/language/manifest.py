"""LanguageManifest: what BUNDLE/best/ of a language model is, manifest.json."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.accuracy import BitsPerByte
from compressor.schema.base import Noun
from compressor.schema.bundle import FileEntry
from compressor.schema.student import Weights

__all__ = ["LanguageManifest"]


class LanguageManifest(Noun):
    """What ships. Keys as those of Manifest. `model`: the folder that the runtime loads: this one. `precision`: of the
    weights; all that is computed is in float. `test`: what this artefact pays for the test split. `most_tokens`: of a
    prompt and its answer together, that the model takes; null: nothing says so."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    task: Literal["causal-lm"] = "causal-lm"
    name: str
    variant: str
    runtime: str
    install: str
    runtime_version: str | None
    precision: str
    executed_precision: str | None
    model: Literal["."] = "."
    vocabulary: int
    most_tokens: int | None
    student: Weights
    teacher: Weights | None
    data: str
    data_licence: str
    profile: str
    kdc: str
    test: BitsPerByte | None
    chosen: str
    made: str
    files: tuple[FileEntry, ...]
