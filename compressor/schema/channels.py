"""Channels: how wide the layers of a student are whose channels were pruned, RUN/channels.json."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.student import trained_anew

__all__ = ["Channels"]

Size = Annotated[int, Field(ge=1)]


class Channels(Noun):
    """What is left of a network whose channels were pruned: by it the network is built again, without what pruned it.

    `architecture`: its name, as in student.json. `shapes`: of each tensor of its state dict that is smaller than in the
    whole network."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    architecture: str
    shapes: dict[str, tuple[Size, ...]]

    @classmethod
    def made_anew(cls, path: Path) -> str:
        return trained_anew(path)
