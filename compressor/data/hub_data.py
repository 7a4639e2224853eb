"""Hugging Face datasets, loaded from the hub or from a folder, without running their code."""

import re
from collections.abc import Mapping
from typing import Any

from compressor.data.labels import listed
from compressor.data.places import expanded, present_path
from compressor.data.split_words import SPLIT_NAMES, sounds_like
from compressor.errors import KdcError, needs
from compressor.hub import offline_if_unreachable
from compressor.install import install_line
from compressor.progress import Progress

__all__ = ["SAVED", "load_splits", "names_of_splits"]

SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves in a folder."""


def load_splits(location: str, progress: Progress) -> tuple[Any, dict[str, Any]]:
    """The module `datasets`, and the splits of what `hf:location` names, as they are called there: a folder that
    `save_to_disk` made, one that `load_dataset` understands, or a name on the hub, with `@CONFIG` if it has several."""
    datasets = needs("datasets", install_line("datasets"), "hf: data")
    loaded = _load(datasets, location, progress)
    return datasets, {"train": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)


def names_of_splits(splits: Mapping[str, Any], location: str, hint: str) -> tuple[dict[str, str], list[str]]:
    """Split -> how it is called there, and the names that mean none. Raises KdcError where that is in doubt; `hint`:
    where there is no train."""
    names: dict[str, str] = {}
    unknown = [name for name in splits if name not in SPLIT_NAMES]
    for name in splits:
        split = SPLIT_NAMES.get(name)
        if split in names:
            raise KdcError(f"hf:{location} holds several splits that mean {split}: {listed(splits)}")
        if split is not None:
            names[split] = name
    if "train" not in names:
        raise KdcError(f"hf:{location} holds no split named train; its splits: {listed(splits) or 'none'}", hint)
    for name in unknown:
        sound = sounds_like(name)
        if sound in ("validation", "test") and sound not in names:
            raise KdcError(
                f"hf:{location} has a split {name}, which sounds like {sound}, and none called {sound}",
                f"rename it: {sound} is else split off train",
            )
    return names, unknown


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
