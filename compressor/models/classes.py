"""Classes are matched by name, never by position."""

from collections import defaultdict
from collections.abc import Sequence

from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel

__all__ = ["imagenet_spellings", "map_classes"]


def imagenet_spellings() -> tuple[tuple[str, ...], ...]:
    """For each of the 1,000 ImageNet classes: its first English name, its other names, its WordNet synset."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    described = [[part.strip() for part in text.split(",")] for text in info.label_descriptions()]
    return tuple((*names, ", ".join(names), info.index_to_label_name(index)) for index, names in enumerate(described))


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def map_classes(model: LoadedModel, class_names: Sequence[str]) -> list[int]:
    """For each of the user's classes, which of the model's outputs it is.

    Names are compared exactly first, then without case and with underscores as spaces. Raises KdcError where the model
    has no class names, where one is not among them, or where one names several outputs.
    """
    source = model.weights.source
    teach = f"fine-tune it on your classes first: kdc teach --teacher {source} --data … --out teacher"
    if model.class_names is None:
        raise KdcError(
            f"the classes of {source} have no names, so they cannot be matched with {_some(class_names)}",
            f"give them in order of its outputs with --teacher-classes FILE (one name a line), or {teach}",
        )
    exact, plain = defaultdict(set), defaultdict(set)
    for index, spellings in enumerate(model.class_names):
        for spelling in spellings:
            exact[spelling].add(index)
            plain[_plain(spelling)].add(index)
    found = {name: exact.get(name) or plain.get(_plain(name)) or set() for name in class_names}
    missing = [name for name, indices in found.items() if not indices]
    if missing:
        own = [names[0] for names in model.class_names]
        raise KdcError(
            f"the classes of {source} do not match: it has no {_some(missing)} among its {len(own)} ({_some(own)})",
            teach,
        )
    several = [name for name, indices in found.items() if len(indices) > 1]
    if several:
        raise KdcError(f"class {several[0]} names {len(found[several[0]])} different outputs of {source}", teach)
    return [next(iter(found[name])) for name in class_names]


def _some(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
