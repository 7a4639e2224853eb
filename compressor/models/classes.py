"""Classes are matched by name, never by position."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel
from compressor.names import spelt

__all__ = ["headless", "imagenet_spellings", "map_classes", "spellings_of"]

Spellings = tuple[tuple[str, ...], ...]
Table = dict[str, set[int]]


@cache
def imagenet_spellings() -> Spellings:
    """For each of the 1,000 ImageNet classes: its first English name, its other names, its WordNet synset."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    described = [[part.strip() for part in text.split(",")] for text in info.label_descriptions()]
    return tuple((*names, ", ".join(names), info.index_to_label_name(index)) for index, names in enumerate(described))


def spellings_of(names: Sequence[str]) -> Spellings:
    """The names that a model's configuration gives its outputs, with all spellings where they are ImageNet's."""
    imagenet = imagenet_spellings()
    if len(names) == len(imagenet) and all(
        name in known or name.split(",")[0].strip() == known[0] for name, known in zip(names, imagenet, strict=True)
    ):
        return imagenet
    return tuple((name,) for name in names)


def _plain(name: str) -> str:
    return " ".join(spelt(spelt(name).replace("_", " ").casefold()).split())


def map_classes(model: LoadedModel, class_names: Sequence[str]) -> list[int]:
    """For each of the user's classes, which of the model's outputs it is.

    Names are compared in Unicode's form NFC: exactly first, then without case and with underscores as spaces; an
    output's own name comes before other outputs' synonyms (ImageNet has a missile, and a projectile that is a missile
    too). Raises KdcError where the model has no class names, one is not among them, one names several outputs, or two
    name the same.
    """
    source = model.weights.source
    teach = f"fine-tune it on your classes first: kdc teach --teacher {source} --data … --out teacher"
    if model.headless:
        raise headless(model, f"it cannot answer {_some(class_names)}")
    if model.class_names is None:
        raise KdcError(
            f"the classes of {source} have no names, so they cannot be matched with {_some(class_names)}",
            f"give them in order of its outputs with --teacher-classes FILE (one name a line), or {teach}",
        )
    primary_names = [(spellings[0],) for spellings in model.class_names]
    tables = [
        (spell, _table(names, spell)) for spell in (spelt, _plain) for names in (primary_names, model.class_names)
    ]
    matches = {
        name: next((table[spell(name)] for spell, table in tables if spell(name) in table), set())
        for name in class_names
    }
    missing = [name for name, indices in matches.items() if not indices]
    if missing:
        known = f"{len(primary_names)} ({_some([name for (name,) in primary_names])})"
        raise KdcError(f"the classes of {source} do not match: it has no {_some(missing)} among its {known}", teach)
    for name, indices in matches.items():
        if len(indices) > 1:
            clear = [_unambiguous(model.class_names[index], tables[-1][1]) for index in sorted(indices)]
            raise KdcError(
                f"class {name} names {len(indices)} different outputs of {source}",
                f"name it {' or '.join(clear)} in the data, or {teach}",
            )
    index_of = {name: next(iter(indices)) for name, indices in matches.items()}
    _refuse_synonyms(index_of, source, teach)
    return [index_of[name] for name in class_names]


def headless(model: LoadedModel, consequence: str) -> KdcError:
    """The error for a backbone where a classifier is needed."""
    source = model.weights.source
    return KdcError(
        f"the weights of {source} bring no classifier, so {consequence}",
        f"teach it your classes first: kdc teach --teacher {source} --data … --out teacher",
    )


def _table(names: Sequence[Sequence[str]], spell: Callable[[str], str]) -> Table:
    """Spelling -> the outputs that it names."""
    table: Table = defaultdict(set)
    for index, spellings in enumerate(names):
        for spelling in spellings:
            table[spell(spelling)].add(index)
    return table


def _refuse_synonyms(index_of: Mapping[str, int], source: str, teach: str) -> None:
    """A teacher that cannot tell two of the user's classes apart would teach the student that they are the same."""
    first: dict[int, str] = {}
    for name, index in index_of.items():
        synonym = first.setdefault(index, name)
        if synonym != name:
            raise KdcError(f"classes {synonym} and {name} are the same output of {source}", teach)


def _unambiguous(spellings: Sequence[str], plain: Table) -> str:
    return next((repr(spelling) for spelling in spellings if len(plain[_plain(spelling)]) == 1), repr(spellings[0]))


def _some(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
