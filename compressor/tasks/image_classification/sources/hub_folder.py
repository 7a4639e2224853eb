"""Folders of images as Hugging Face's `load_dataset` reads them: where that is not what the folders mean.

It takes the last folder of each image for its class, whatever lies above, and for a split what begins or ends with
the word in small letters: "Test" joins train, images of a class "bus" beside "train_interior" are passed over.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from compressor.data.hub_data import SAVED
from compressor.data.labels import listed
from compressor.data.layout import Inside, doubt
from compressor.data.split_words import SPLIT_NAMES, sounds_like
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.tasks.image_classification.sources.folder import find_images

__all__ = ["refuse_misread"]


def refuse_misread(datasets: Any, root: Path, splits: Mapping[str, Any]) -> None:
    """Raise KdcError where `load_dataset` has read a folder of images, `root`, otherwise than people would: some are
    passed over, one split stands in another, folders of one name are one class, or a class sounds like a split.

    Nothing is looked at where the folder says itself what it holds, in metadata.csv or the like or in its README."""
    saved = any((root / marker).is_file() for marker in SAVED)
    if saved or not root.is_dir() or not all(map(_plain, splits.values())) or _configured(root):
        return
    placed = {split: _places(datasets, dataset, root) for split, dataset in splits.items()}
    fault = _fault(root, placed)
    if fault:
        raise KdcError(
            f"hf:{root}, as load_dataset reads it, {fault}", f"folder:{root}, which asks where it is in doubt"
        )


def _plain(dataset: Any) -> bool:
    """Whether it is a folder of images, whose folders say the classes, or nothing does."""
    return dataset.builder_name == "imagefolder" and set(dataset.features) <= {"image", "label"}


def _configured(root: Path) -> bool:
    card = root / "README.md"
    return card.is_file() and bool(re.search(rb"^\s*(data_files|data_dir):", card.read_bytes()[:100_000], re.MULTILINE))


def _places(datasets: Any, dataset: Any, root: Path) -> list[PurePath]:
    """The path of each image below `root`."""
    cells = dataset.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    paths: list[PurePath] = []
    for path in (Path(cell["path"]) for cell in cells["image"] if cell["path"]):
        base = next((base for base in (root.absolute(), root.resolve()) if path.is_relative_to(base)), None)
        if base is not None:
            paths.append(path.relative_to(base))
    return paths


def _fault(root: Path, placed: Mapping[str, list[PurePath]]) -> str:
    taken = {path.as_posix() for paths in placed.values() for path in paths}
    missed = [name for name in find_images(str(root), Silent()).parts["train"].ids if name not in taken]
    if missed:
        return f"lacks {len(missed):,} of its images, e.g. {missed[0]}"
    for split, paths in placed.items():
        class_folders: dict[str, set[PurePath]] = defaultdict(set)
        for folder in sorted({path.parent for path in paths}):
            class_folders[folder.name].add(folder)
            split_name = next(
                (part for part in folder.parts[:-1] if sounds_like(part) not in (None, _meant(split))), None
            )
            if split_name:
                return f"has the images of {folder} in {split}"
        if why := doubt({name: Inside((), images=True) for name in class_folders}):
            return f"has as classes {why}"
        for name, folders in class_folders.items():
            if len(folders) > 1:
                return f"makes one class of {listed(sorted(map(str, folders)), 3)}, {name}"
    return ""


def _meant(split: str) -> str | None:
    return SPLIT_NAMES.get(split)
