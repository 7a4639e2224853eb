"""`hf:NAME_OR_PATH`: Hugging Face datasets, from the hub or from a folder."""

from collections.abc import Sequence
from typing import Any

from compressor.data.hub_data import load_splits, names_of_splits
from compressor.data.labels import class_order, label_texts, listed
from compressor.data.places import LITTER, expanded
from compressor.data.samples import Found, Part
from compressor.data.table_files import pick
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.tasks.image_classification.sources.hub_folder import refuse_misread
from compressor.tasks.image_classification.sources.parquet import encoded_image
from compressor.tasks.image_classification.sources.tables import IMAGE_COLUMNS, LABEL_COLUMNS

__all__ = ["find_hub"]


def find_hub(location: str, progress: Progress) -> Found:
    """See `hub_data.load_splits`; a folder that `load_dataset` understands may be an imagefolder."""
    datasets, splits = load_splits(location, progress)
    refuse_misread(datasets, expanded(location), splits)
    hint = f"folder:{location} reads folders of images otherwise" if expanded(location).is_dir() else ""
    names, unknown = names_of_splits(splits, location, hint)
    parts = {split: _part(datasets, splits[name], name, f"hf:{location}") for split, name in names.items()}
    train = splits[names["train"]]
    image, label = _columns(datasets, train, f"hf:{location}")
    notes = [f"images from column {image}, labels from column {label}"]
    if unknown:
        notes.append(f"ignored the splits {listed(unknown)}")
    class_names = _names(train, label) or class_order(parts["train"].labels)
    _refuse_litter(class_names, location)
    return Found(class_names, parts, tuple(notes))


def _refuse_litter(class_names: Sequence[str], location: str) -> None:
    """`load_dataset` takes every folder of a folder of images for a class."""
    litter = [name for name in class_names if name.lower() in LITTER]
    if litter and expanded(location).is_dir():
        raise KdcError(
            f"hf:{location} has a class {litter[0]}, which is a folder that a system or a tool left there",
            f"remove it, or folder:{location}, which passes over it",
        )


def _columns(datasets: Any, dataset: Any, where: str) -> tuple[str, str]:
    """The columns of images and labels: by name, else by being the only one of the type Image or ClassLabel."""
    chosen = []
    kinds = (datasets.Image, IMAGE_COLUMNS, "images"), (datasets.ClassLabel, LABEL_COLUMNS, "labels")
    for kind, known, content in kinds:
        typed = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
        named = [name for name in dataset.column_names if name.lower() in known]
        chosen.append(typed[0] if len(typed) == 1 and not named else pick(dataset.column_names, known, content, where))
    return chosen[0], chosen[1]


def _names(dataset: Any, label: str) -> tuple[str, ...] | None:
    names = getattr(dataset.features[label], "names", None)
    return tuple(names) if names else None


def _part(datasets: Any, dataset: Any, name: str, reference: str) -> Part:
    image, label = _columns(datasets, dataset, reference)

    def where(row: int) -> str:
        return f"{reference} {name} row {row}"

    if isinstance(dataset.features[image], datasets.Image):
        # kdc decodes itself: every source then treats EXIF, 16 bit and damaged images alike
        dataset = dataset.cast_column(image, datasets.Image(decode=False))
    images = dataset.select_columns([image])
    labels = dataset.select_columns([label])[:][label]
    return Part(
        ids=tuple(f"{name}/{row}" for row in range(len(dataset))),
        labels=label_texts(labels, where, _names(dataset, label)),
        content=lambda row: encoded_image(images[row][image], where(row), None),
        where=where,
        encoded=True,
    )
