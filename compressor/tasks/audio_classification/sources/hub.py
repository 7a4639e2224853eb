"""`hf:NAME_OR_PATH`: Hugging Face datasets, from the hub or from a folder, with a column of the type Audio."""

from typing import Any

from compressor.data.hub_data import load_splits, names_of_splits
from compressor.data.labels import class_order, label_texts, listed
from compressor.data.parquet_cells import encoded_in
from compressor.data.places import expanded
from compressor.data.samples import Found, Part
from compressor.data.table_files import pick
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.tasks.audio_classification.reading import Recording
from compressor.tasks.audio_classification.sources.columns import (
    AUDIO_COLUMNS,
    LABEL_COLUMNS,
    Chosen,
    group_column,
    time_columns,
)
from compressor.tasks.audio_classification.sources.folder import read_sound
from compressor.tasks.audio_classification.sources.tables import cuts_of, grouped

__all__ = ["find_hub"]


def find_hub(location: str, progress: Progress, *, labelled: bool = True) -> Found:
    """See `hub_data.load_splits`. The only column of the type Audio, or ClassLabel, counts whatever it is called."""
    datasets, splits = load_splits(location, progress)
    hint = f"folder:{location} reads folders of sounds otherwise" if expanded(location).is_dir() else ""
    names, unknown = names_of_splits(splits, location, hint)
    source, train = f"hf:{location}", splits[names["train"]]
    audio = _column(datasets.Audio, AUDIO_COLUMNS, "sounds", train, source)
    label = _column(datasets.ClassLabel, LABEL_COLUMNS, "labels", train, source) if labelled else None
    start, end = time_columns(train.column_names, source)
    chosen = Chosen(audio, label, start, end, group_column(train.column_names, source))
    read = {split: _part(datasets, splits[name], chosen, name, source) for split, name in names.items()}
    parts = {split: part for split, (part, _) in read.items()}
    notes = [chosen.note + next(iter(read.values()))[1]]
    if unknown:
        notes.append(f"ignored the splits {listed(unknown)}")
    named = None if label is None else getattr(train.features[label], "names", None)
    return Found(tuple(named) if named else class_order(filter(None, parts["train"].labels)), parts, tuple(notes))


def _column(kind: Any, known: tuple[str, ...], content: str, dataset: Any, where: str) -> str:
    """By name, else by being the only one of its type."""
    typed = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
    named = [name for name in dataset.column_names if name.lower() in known]
    return str(typed[0]) if len(typed) == 1 and not named else pick(dataset.column_names, known, content, where)


def _part(datasets: Any, dataset: Any, chosen: Chosen, name: str, source: str) -> tuple[Part, str]:
    """A split, and the rest of a note on what belongs together."""

    def where(row: int) -> str:
        return f"{source} {name} row {row}"

    for column in chosen.names:
        if column not in dataset.column_names:
            raise KdcError(f"{source}: the split {name} has no column {column}; its: {listed(dataset.column_names)}")
    if isinstance(dataset.features[chosen.audio], datasets.Audio):
        # kdc decodes itself: every source then treats channels, rates and damaged files alike
        dataset = dataset.cast_column(chosen.audio, datasets.Audio(decode=False))
    sounds = dataset.select_columns([chosen.audio])

    def values(column: str | None) -> list[Any] | None:
        return None if column is None else list(dataset.select_columns([column])[:][column])

    def recording(row: int) -> Recording:
        def encoded() -> bytes:
            return encoded_in(sounds[row][chosen.audio], where(row), lambda text: read_sound(expanded(text)), "sound")

        return Recording(encoded, where(row))

    cuts, recordings = cuts_of(
        [recording(row) for row in range(len(dataset))], values(chosen.start), values(chosen.end), where
    )
    stated = values(chosen.label)
    named = None if chosen.label is None else getattr(dataset.features[chosen.label], "names", None)
    names = tuple(named) if named else None
    groups, said = grouped(values(chosen.group), recordings, where)
    part = Part(
        ids=tuple(f"{name}/{row}" for row in range(len(dataset))),
        labels=("",) * len(dataset) if stated is None else label_texts(stated, where, names),
        content=cuts.__getitem__,
        where=where,
        encoded=True,
        groups=groups,
    )
    return part, said
