"""Device: one of several that a bundle was measured on, BUNDLE/devices/NAME/device.json."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun

__all__ = ["Device"]


class Device(Noun):
    """`url`: as `--device` takes it. `error`: why nothing was measured there, else null; then `exit_code` is that with
    which measuring it alone would have ended."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    url: str
    error: str | None = None
    exit_code: int | None = None
