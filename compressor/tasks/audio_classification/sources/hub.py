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
from compressor.tasks.audio_classification.reading import Cut, Recording
from compressor.tasks.audio_classification.sources.columns import AUDIO_COLUMNS, LABEL_COLUMNS, group_column
from compressor.tasks.audio_classification.sources.folder import read_sound
from compressor.tasks.audio_classification.sources.tables import grouped

__all__ = ["find_hub"]


def find_hub(location: str, progress: Progress, *, labelled: bool = True) -> Found:
    """See `hub_data.load_splits`. The only column of the type Audio, or ClassLabel, counts whatever it is called."""
    datasets, splits = load_splits(location, progress)
    hint = f"folder:{location} reads folders of sounds otherwise" if expanded(location).is_dir() else ""
    names, unknown = names_of_splits(splits, location, hint)
    source, train = f"hf:{location}", splits[names["train"]]
    audio = _column(datasets.Audio, AUDIO_COLUMNS, "sounds", train, source)
    label = _column(datasets.ClassLabel, LABEL_COLUMNS, "labels", train, source) if labelled else None
    group = group_column(train.column_names, source)
    parts = {split: _part(datasets, splits[name], (audio, label, group), name, source) for split, name in names.items()}
    notes = [f"sounds from column {audio}" + (f", labels from column {label}" if label else "")]
    notes[0] += f", groups from column {group}" if group else ""
    if unknown:
        notes.append(f"ignored the splits {listed(unknown)}")
    named = None if label is None else getattr(train.features[label], "names", None)
    return Found(tuple(named) if named else class_order(filter(None, parts["train"].labels)), parts, tuple(notes))


def _column(kind: Any, known: tuple[str, ...], content: str, dataset: Any, where: str) -> str:
    """By name, else by being the only one of its type."""
    typed = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
    named = [name for name in dataset.column_names if name.lower() in known]
    return str(typed[0]) if len(typed) == 1 and not named else pick(dataset.column_names, known, content, where)


def _part(datasets: Any, dataset: Any, columns: tuple[str, str | None, str | None], name: str, source: str) -> Part:
    audio, label, group = columns

    def where(row: int) -> str:
        return f"{source} {name} row {row}"

    for column in filter(None, columns):
        if column not in dataset.column_names:
            raise KdcError(f"{source}: the split {name} has no column {column}; its: {listed(dataset.column_names)}")
    if isinstance(dataset.features[audio], datasets.Audio):
        # kdc decodes itself: every source then treats channels, rates and damaged files alike
        dataset = dataset.cast_column(audio, datasets.Audio(decode=False))
    sounds = dataset.select_columns([audio])

    def values(column: str) -> list[Any]:
        return list(dataset.select_columns([column])[:][column])

    def content(row: int) -> Cut:
        def encoded() -> bytes:
            return encoded_in(sounds[row][audio], where(row), lambda text: read_sound(expanded(text)), "sound")

        return Cut(Recording(encoded, where(row)))

    named = None if label is None else getattr(dataset.features[label], "names", None)
    names = tuple(named) if named else None
    labels = ("",) * len(dataset) if label is None else label_texts(values(label), where, names)
    return Part(
        ids=tuple(f"{name}/{row}" for row in range(len(dataset))),
        labels=labels,
        content=content,
        where=where,
        encoded=True,
        groups=grouped(values(group) if group else None, None, where)[0],
    )
