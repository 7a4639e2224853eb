"""Release: what a bundle cost and predicted, in a small file that later bundles are held against; and what differs."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.class_names import ClassNames
from compressor.schema.estimate import Estimate

__all__ = ["Change", "ClassChange", "Flip", "Release", "ReleaseDiff", "Released", "VariantDiff"]

Packed = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
"""Base64 of the zlib stream of little-endian numbers."""


class Released(Noun):
    """A student variant. `top1`: int32 [N], the predicted class of each test sample, -1 where a logit was not finite;
    null where it was not measured, or did not run in its precision."""

    name: str
    runtime: str
    precision: str
    size_bytes: Annotated[int, Field(ge=0)]
    top1: Packed | None


class Release(Noun):
    """What `kdc report BUNDLE --format release` writes, and BUNDLE/baseline/release.json. `measured`: when; null where
    it was not. `n` test samples: `labels` int32 [N]; `digests` uint64 [N], of what each shows; `contents`, over all of
    them in their order; both null in bundles of an earlier kdc, of which only `ids_sha256`, of their names, is known.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    kind: Literal["release"] = "release"
    kdc: str
    student: str
    profile: str
    measured: str | None
    class_names: ClassNames
    n: Annotated[int, Field(ge=1, le=10_000_000)]
    labels: Packed
    digests: Packed | None
    contents: str | None
    ids_sha256: str
    variants: tuple[Released, ...]


class Change(Noun):
    """A figure before and now. `change`: of accuracies now less before, paired by sample; of size and p50 now /
    before. `outcome`: "open" where the interval does not tell better from worse, and for p50 where the session broke
    off or either did not run in its precision; "same" where every prediction is."""

    figure: Literal["accuracy", "balanced_accuracy", "size_bytes", "p50_ms"]
    before: float
    now: float
    change: Estimate
    outcome: Literal["better", "worse", "same", "open"]


class ClassChange(Noun):
    """A class of whose `n` shared test samples `before` were right and `now` are, which chance does not explain."""

    class_name: str
    n: int
    before: int
    now: int


class Flip(Noun):
    """A test sample that the baseline had right and the variant has not: its name, its class, and what it is taken for
    (null: its logits are not finite)."""

    sample: str
    class_name: str
    taken_for: str | None


class VariantDiff(Noun):
    """One student variant beside the same variant of the baseline. `predictions`: whether the baseline's were made in
    this session or when it was measured; null where there are none, and `missing` says why. `negative_flips`: share of
    the shared samples that were right and are wrong; `positive_flips`: the reverse; `flips`: some of the former.
    """

    variant: str
    predictions: Literal["this session", "stored"] | None
    missing: str | None
    changes: tuple[Change, ...]
    worse_classes: tuple[ClassChange, ...] = ()
    better_classes: tuple[ClassChange, ...] = ()
    negative_flips: Estimate | None = None
    positive_flips: Estimate | None = None
    flips: tuple[Flip, ...] = ()


class ReleaseDiff(Noun):
    """What got better, worse, or cannot be told. `shared`: test samples that both have; `added`, `removed`: those that
    only this bundle or only the baseline has; `relabelled`: shared ones whose label is another now, which judges both.
    `added_variants`, `removed_variants`: without a counterpart."""

    student: str
    kdc: str | None
    measured: str | None
    shared: int
    added: int
    removed: int
    relabelled: int
    added_variants: tuple[str, ...]
    removed_variants: tuple[str, ...]
    variants: tuple[VariantDiff, ...]
