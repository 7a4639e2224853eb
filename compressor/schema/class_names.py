"""The names of classes in nouns: what reads them writes one a line."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from compressor.names import class_fault, escaped

__all__ = ["ClassNames"]


def _each_one_line(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if fault := class_fault(name):
            raise ValueError(f"the class name {escaped(name)} {fault}")
    return names


ClassNames: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_each_one_line)]
