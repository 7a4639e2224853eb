"""Columns of a table that say which split a row is of, and are called otherwise: subset, Usage, is_valid."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from compressor.data.labels import listed
from compressor.data.split_words import sounds_like
from compressor.errors import KdcError

__all__ = ["SplitColumns"]

FLAGS = frozenset({"0", "1", "false", "true", "no", "yes"})


class SplitColumns:
    """Watches columns, a value at a time, for those whose values all sound like splits, several of them; or which are
    called is_train, valid or the like and hold yes and no. Passing over such a column would make other splits than the
    data has, and train on its test images."""

    def __init__(self, columns: Mapping[int, str]) -> None:
        """`columns`: those that count for nothing else, by their number."""
        self._names = dict(columns)
        self._said: dict[int, dict[str, str]] = {number: {} for number in columns}
        self._flags = {number for number, name in columns.items() if _is_flag(name)}

    @property
    def left(self) -> Sequence[int]:
        """The columns that may still be one."""
        return tuple(self._said)

    def see(self, number: int, values: Iterable[object]) -> None:
        """More values of one column; what is missing says nothing."""
        for value in values:
            text = "" if value is None else str(value).strip()
            said = _flag(text) if number in self._flags else _split(text)
            if text and not said:
                del self._said[number]
                return
            if said:
                self._said[number].setdefault(said, text)

    def require_none(self, where: object) -> None:
        """Raise KdcError for the first column that is one."""
        for number, said in self._said.items():
            if len(said) > 1:
                values = listed(sorted(said.values()), 4)
                raise KdcError(
                    f"{where}: column {self._names[number]} ({values}) says which split a row is of, "
                    "by its name or its values, and is not called split",
                    "call the column split and its values train, validation and test; or leave it out, and kdc splits",
                )


def _is_flag(name: str) -> bool:
    return sounds_like(name.strip().lower().removeprefix("is_").removeprefix("is ")) is not None


@lru_cache(maxsize=4096)
def _split(text: str) -> str | None:
    return sounds_like(text) if len(text) <= 40 else None


def _flag(text: str) -> str | None:
    return text.lower() if text.lower() in FLAGS else _split(text)
