"""`hf:NAME_OR_PATH`: Hugging Face datasets, from the hub or from a folder."""

import re
from collections.abc import Sequence
from typing import Any

from compressor.data.labels import class_order, label_texts, listed
from compressor.data.samples import Found, Part
from compressor.data.split_words import SPLIT_NAMES, sounds_like
from compressor.errors import KdcError, needs
from compressor.hub import offline_if_unreachable
from compressor.install import install_line
from compressor.progress import Progress
from compressor.tasks.image_classification.sources.folder import LITTER, expanded, present_path
from compressor.tasks.image_classification.sources.hub_folder import SAVED, refuse_misread
from compressor.tasks.image_classification.sources.parquet import encoded_image
from compressor.tasks.image_classification.sources.tables import IMAGE_COLUMNS, LABEL_COLUMNS, pick

__all__ = ["find_hub"]


def find_hub(location: str, progress: Progress) -> Found:
    """A folder that `save_to_disk` made, a folder that `load_dataset` understands (such as an imagefolder), or a name
    on the hub, with `@CONFIG` if the data set has several."""
    datasets = needs("datasets", install_line("datasets"), "hf: data")
    loaded = _load(datasets, location, progress)
    splits = {"train": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)
    refuse_misread(datasets, expanded(location), splits)
    parts: dict[str, Part] = {}
    unknown = [name for name in splits if name not in SPLIT_NAMES]
    for name, dataset in splits.items():
        split = SPLIT_NAMES.get(name)
        if split in parts:
            raise KdcError(f"hf:{location} holds several splits that mean {split}: {listed(splits)}")
        if split is not None:
            parts[split] = _part(datasets, dataset, name, f"hf:{location}")
    if "train" not in parts:
        raise KdcError(
            f"hf:{location} holds no split named train; its splits: {listed(splits) or 'none'}",
            f"folder:{location} reads folders of images otherwise" if expanded(location).is_dir() else "",
        )
    for name in unknown:
        sound = sounds_like(name)
        if sound in ("validation", "test") and sound not in parts:
            raise KdcError(
                f"hf:{location} has a split {name}, which sounds like {sound}, and none called {sound}",
                f"rename it: {sound} is else split off train",
            )
    train = next(dataset for name, dataset in splits.items() if SPLIT_NAMES.get(name) == "train")
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


def _load(datasets: Any, location: str, progress: Progress) -> Any:
    name, _, config = location.partition("@")
    path = expanded(location)
    if not location or path.is_absolute() or location.startswith((".", "~")) or path.exists():
        path = present_path(location, "hf", folder=True)
        name, config = str(path), ""
    elif not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise KdcError(
            f"hf:{location} is neither a folder that exists nor a name on the hub", "hf:OWNER/NAME or hf:PATH"
        )
    else:
        progress.note(f"loading {location} with Hugging Face datasets, which downloads it the first time")
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()  # nothing but the command line draws
    try:
        if any((path / marker).is_file() for marker in SAVED):
            return datasets.load_from_disk(name)
        with offline_if_unreachable():
            return datasets.load_dataset(name, config or None, **_without_code(datasets))
    except Exception as error:  # from hub, network, builders and file readers: no common ancestor
        raise _cannot_load(error, location, path.exists()) from error
    finally:
        if shown:
            datasets.enable_progress_bars()


def _without_code(datasets: Any) -> dict[str, Any]:
    """The argument that has no script of the data set run, where datasets still runs any: from version 4 on it refuses
    scripts, and the argument."""
    return {"trust_remote_code": False} if int(datasets.__version__.split(".")[0]) < 4 else {}


def _cannot_load(error: Exception, location: str, local: bool) -> KdcError:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    unreachable = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    if local or not unreachable:
        return KdcError(
            f"hf:{location} cannot be loaded: {reason}", "" if local else "check the name, or log in to the hub"
        )
    return KdcError(
        f"hf:{location} cannot be loaded, the Hugging Face hub cannot be reached: {reason}",
        "check the network (and HF_HUB_OFFLINE), or name a local folder: hf:PATH",
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
