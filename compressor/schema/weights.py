"""Weights: whose they are, and what else a teacher's answers depend on."""

from collections.abc import Iterable, Sequence

from compressor.schema.base import Noun
from compressor.schema.provenance import UNKNOWN, Ancestor

__all__ = ["Weights", "joint", "joint_terms", "merged"]


class Weights(Noun):
    """Whose weights these are. `source` as the user typed it; `sha256` over names, shapes and bytes of the tensors,
    whatever file they lay in; `licence` as timm or Hugging Face metadata say, or "unknown".

    What a teacher answers also depends on how it sees images, and on which of its outputs is which class of the data:
    `preprocess_sha256` and `classes_sha256` say that, and are null where it did not matter. The same weights answer
    otherwise in another network, too, of other activations or attention heads: `probe` is what it answered to one drawn
    image, the first logits.

    Of a teacher that is a table of answers, `source` "outputs:FILE": `sha256` is over what the table says, it has 0
    `parameters`, and the rest is as the table tells of its model, or "unknown".

    `terms`: what is said of its use beside the licence, or "unknown". `ancestors`: of what was made of several models,
    or learned from others, each of them; empty where these weights are the only ones."""

    source: str
    architecture: str
    sha256: str
    licence: str
    parameters: int
    preprocess_sha256: str | None = None
    classes_sha256: str | None = None
    probe: tuple[float, ...] = ()
    terms: str = UNKNOWN
    ancestors: tuple[Ancestor, ...] = ()

    @property
    def provenance(self) -> tuple[Ancestor, ...]:
        """`ancestors`, or these weights as the only one."""
        alone = Ancestor(source=self.source, model=self.architecture, licence=self.licence, terms=self.terms)
        return self.ancestors or (alone,)

    @property
    def identity(self) -> str:
        """All that its answers depend on, in one text. The probe is coarse in it: another machine's last digits are
        others."""
        largest = max(map(abs, self.probe), default=0.0) or 1.0
        coarse = [round(10 * value / largest) for value in self.probe]
        return f"{self.sha256} {self.preprocess_sha256} {self.classes_sha256} {coarse}"

    def changed_from(self, before: "Weights") -> str | None:
        """What makes these answer otherwise than `before`, as "its weights differ"; None where nothing does."""
        parts = {"weights": "sha256", "preprocessing": "preprocess_sha256", "classes": "classes_sha256"}
        changed = [name for name, key in parts.items() if getattr(self, key) != getattr(before, key)]
        if not changed and not _alike(self.probe, before.probe):
            return "its answers differ, with the same weights: its configuration is another"
        if changed in (["preprocessing"], []):
            return "its preprocessing differs" if changed else None
        return f"its {' and '.join(changed)} differ"


def _alike(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two answers are the same but for rounding."""
    most = 0.01 * max(map(abs, first), default=0.0)
    return len(first) == len(second) and all(abs(a - b) <= most for a, b in zip(first, second, strict=True))


def merged(parts: Iterable[Weights]) -> tuple[Ancestor, ...]:
    """The ancestors of what is made of all `parts`, each once."""
    return tuple(dict.fromkeys(ancestor for part in parts for ancestor in part.provenance))


def joint(licences: Iterable[str]) -> str:
    """Licences that hold together: each once, as SPDX joins them."""
    return " AND ".join(dict.fromkeys(licences))


def joint_terms(terms: Iterable[str]) -> str:
    """Those that are known, each once."""
    return "; ".join(dict.fromkeys(text for text in terms if text != UNKNOWN)) or UNKNOWN
