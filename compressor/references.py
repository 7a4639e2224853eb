"""References, which name a model or data on the command line and in a recipe: `scheme:rest`, or one word."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ANSWERING", "CUT", "DATA", "HUBS", "MODELS", "TEACHERS", "TRAINABLE", "Reference"]

HUBS = "timm:NAME, timm:NAME@CHECKPOINT, timm:local-dir:PATH, hf:REPO_OR_PATH"
"""Models that others made."""
TRAINABLE = f"{HUBS} or run:DIR"
"""What `kdc teach` and `kdc specialists` train on."""
MODELS = f"{HUBS}, run:DIR or specialists:DIR"
"""Whatever answers by a network."""
ANSWERING = f"{MODELS}; or api:URL#MODEL, an endpoint as OpenAI's"
"""Whatever `kdc predict` asks."""
TEACHERS = f"{HUBS}, run:DIR, specialists:DIR, outputs:FILE, self or peers"
"""What `kdc distill` learns from."""
DATA = "folder:PATH, idx:PATH, parquet:PATH, csv:PATH, jsonl:PATH, text:FILE, hf:NAME_OR_PATH or digits"

LOCAL = "local-dir:"

CUT = ("layers:", "static:")
"""Students that are made of their teacher, with its weights."""


@dataclass(frozen=True)
class Reference:
    """`run:DIR` is scheme "run", rest "DIR"; the word `digits` is scheme "digits", and its rest is None. `text`: all of
    it, as it was typed."""

    text: str
    scheme: str
    rest: str | None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Every text is a reference to something; whether there is such a thing, says who looks for it."""
        scheme, colon, rest = text.partition(":")
        return cls(text, scheme, rest if colon else None)

    def folder(self, scheme: str) -> Path | None:
        """Where it lies, if it is one of `scheme`: `run:DIR` as `folder("run")`."""
        return Path(self.rest) if self.scheme == scheme and self.rest is not None else None

    @property
    def local(self) -> Path | None:
        """The folder of `timm:local-dir:PATH`."""
        if self.scheme != "timm" or self.rest is None or not self.rest.startswith(LOCAL):
            return None
        return Path(self.rest.removeprefix(LOCAL))

    @property
    def name(self) -> str:
        """What stands before an "@": NAME of `timm:NAME@CHECKPOINT`, a data set of `hf:NAME@CONFIG`."""
        return (self.rest or "").partition("@")[0]

    @property
    def at(self) -> str | None:
        """What stands after the "@": a checkpoint, a configuration. None where there is no "@"."""
        _, sign, suffix = (self.rest or "").partition("@")
        return suffix if sign else None
