"""What a command would do, before it does it: `--plan`."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.estimate import Spread

__all__ = ["ExportForecast", "Forecast", "Part"]


class Part(Noun):
    """One training of a plan: of `student`, so many `epochs` of `steps` steps. `step_s`: seconds of a step, timed here
    over whole passes of a few steps; `validation_s`: of one look at the validation split, from a part of it; `seconds`:
    of all of it, from these."""

    name: str
    student: str
    epochs: int
    steps: int
    step_s: Spread
    validation_s: float
    seconds: float


class Forecast(Noun):
    """The plan of `kdc distill`. `timed`: where, and on how many steps. `decode_s`: to decode all images, as often as
    the trainings do, from a part of them. `disk`: about how many bytes the run needs, by what for; `free`: bytes that
    are free where it would be written. `seconds`: of all parts and of decoding. `notes`: what was not timed; `stops`:
    what would stop this command or the export for the profile after the training, but for runtimes that are `missing`.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    out: str
    teacher: str
    data: str
    counts: dict[str, int]
    timed: str
    decode_s: float
    parts: tuple[Part, ...]
    disk: dict[str, int]
    free: int
    seconds: float
    notes: tuple[str, ...]
    stops: tuple[str, ...]
    missing: tuple[str, ...] = ()


class ExportForecast(Noun):
    """The plan of `kdc export`. `variants`: what would be built, as RUNTIME-PRECISION. The rest as of Forecast."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    out: str
    run: str
    profile: str
    variants: tuple[str, ...]
    disk: dict[str, int]
    free: int
    notes: tuple[str, ...]
    stops: tuple[str, ...]
    missing: tuple[str, ...] = ()
