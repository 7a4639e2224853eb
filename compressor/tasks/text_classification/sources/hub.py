"""`hf:NAME_OR_PATH`: Hugging Face datasets, from the hub or from a folder."""

from typing import Any

from compressor.data.hub_data import load_splits, names_of_splits
from compressor.data.labels import class_order, label_texts, listed
from compressor.data.samples import Found, Part
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.schema.student import Columns
from compressor.tasks.text_classification.sources.columns import Chosen, choose, require_words
from compressor.tasks.text_classification.sources.tables import rows_in

__all__ = ["find_hub"]


def find_hub(location: str, columns: Columns, progress: Progress, *, labelled: bool = True) -> Found:
    """See `hub_data.load_splits`. The only column of the type ClassLabel is the label, where none is stated."""
    datasets, splits = load_splits(location, progress)
    names, unknown = names_of_splits(splits, location, "")
    source = f"hf:{location}"
    train = splits[names["train"]]
    numeric = [name for name, kind in train.features.items() if not _holds_texts(datasets, kind)]
    stated = _with_label(datasets, train, columns)
    chosen = choose(train.column_names, stated, source, numeric, labelled=labelled)
    parts = {split: _part(datasets, splits[name], chosen, columns, name, source) for split, name in names.items()}
    notes = [chosen.note, *([f"ignored the splits {listed(unknown)}"] if unknown else [])]
    named = None if chosen.label is None else getattr(train.features[chosen.label], "names", None)
    return Found(tuple(named) if named else class_order(filter(None, parts["train"].labels)), parts, tuple(notes))


def _with_label(datasets: Any, dataset: Any, columns: Columns) -> Columns:
    typed = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)]
    if columns.label is not None or len(typed) != 1:
        return columns
    return columns.model_copy(update={"label": typed[0]})


def _holds_texts(datasets: Any, kind: Any) -> bool:
    return isinstance(kind, datasets.Value) and kind.dtype in ("string", "large_string")


def _part(datasets: Any, dataset: Any, chosen: Chosen, columns: Columns, name: str, source: str) -> Part:
    def where(row: int) -> str:
        return f"{source} {name} row {row}"

    for column in chosen.names:
        if column not in dataset.column_names:
            raise KdcError(f"{source}: the split {name} has no column {column}; its: {listed(dataset.column_names)}")
    for column in chosen.text:
        if not _holds_texts(datasets, dataset.features[column]):
            kind = dataset.features[column]
            raise KdcError(f"{source}: column {column} holds {kind}, and is to hold texts", "--text-column NAME")
    labels = ("",) * len(dataset)
    if chosen.label is not None:
        named = getattr(dataset.features[chosen.label], "names", None)
        stated = dataset.select_columns([chosen.label])[:][chosen.label]
        labels = label_texts(stated, where, tuple(named) if named else None, gaps=True)
    cells = [dataset.select_columns([column])[:][column] for column in chosen.text]
    for column, values in zip(chosen.text, cells, strict=True):
        require_words(values, column, columns, f"{source} {name}")
    return Part(
        ids=tuple(f"{name}/{row}" for row in range(len(dataset))),
        labels=labels,
        content=rows_in(cells),
        where=where,
        encoded=True,
    )
