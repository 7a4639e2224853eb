"""The test samples that a bundle and its baseline both have, and what either predicts for them.

Samples are matched by what they show, whatever they are called and in whatever order they come, so that a test set may
have grown. The labels of this bundle judge both.
"""

import base64
import binascii
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.files.atomic import file_sha256
from compressor.report.arrays import open_array
from compressor.report.integrity import inside
from compressor.schema.bundle import Bundle
from compressor.schema.release import Release, Released

__all__ = ["Shared", "digests_of", "packed", "predictions_of", "shared_with"]

Ints = NDArray[np.int64]
LABEL: Literal["<i4"] = "<i4"
DIGEST: Literal["<u8"] = "<u8"


@dataclass(frozen=True)
class Shared:
    """A baseline's `release`, and the rows of the samples that both have, int [S], S > 0: `now` among the `n` of this
    bundle, `before` in the baseline. `relabelled` of them have another label now."""

    release: Release
    n: int
    now: Ints
    before: Ints
    relabelled: int

    @property
    def is_whole(self) -> bool:
        """Whether both were tested on the same samples in the same order."""
        everything = np.arange(self.n)
        return self.n == self.release.n and all(np.array_equal(rows, everything) for rows in (self.now, self.before))

    @property
    def text(self) -> str:
        """What both have, where it is not everything; empty else."""
        added, removed = self.n - len(self.now), self.release.n - len(self.now)
        if not added and not removed:
            return ""
        return f"{len(self.now):,} test samples are in both: {added:,} are new, {removed:,} are gone, and left out"

    def released(self, runtime: str, precision: str) -> Released | None:
        """The same variant of the baseline."""
        for variant in self.release.variants:
            if (variant.runtime, variant.precision) == (runtime, precision):
                return variant
        return None


def packed(values: NDArray[Any], dtype: Literal["<i4", "<u8"]) -> str:
    """Numbers as they lie in a release."""
    return base64.b64encode(zlib.compress(values.astype(dtype).tobytes(), 9)).decode("ascii")


def unpacked(text: str, dtype: Literal["<i4", "<u8"], n: int, where: str) -> NDArray[Any]:
    """`n` numbers of a release. Raises KdcError where there are not just as many."""
    size = n * np.dtype(dtype).itemsize
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise KdcError(f"{where} is damaged: {error}") from None
    if len(content) != size:
        raise KdcError(f"{where} is damaged: it does not hold {n} numbers")
    if not stream.eof or stream.unused_data:  # at its end stands a checksum, which is compared there alone
        raise KdcError(f"{where} is damaged: it was cut off, or something follows")
    return np.frombuffer(content, dtype)


def digests_of(bundle_dir: Path, bundle: Bundle) -> NDArray[np.uint64] | None:
    """What each test sample shows, uint64 [N]; None in bundles of an earlier kdc."""
    if bundle.eval.digests is None:
        return None
    path = inside(bundle_dir, bundle.eval.digests, "bundle.json")
    file = open_array(path)
    if file.shape != (bundle.eval.n,) or file.dtype != np.dtype(DIGEST):
        expected = f"expected {bundle.eval.n} digests (uint64)"
        raise KdcError(f"{path}: {expected}, found {file.dtype} of shape {list(file.shape)}")
    return file.read()


def shared_with(bundle_dir: Path, bundle: Bundle, labels: Ints, release: Release, where: str) -> Shared:
    """`release`, read at `where`, beside the bundle with its test `labels` [N]. Raises KdcError for other classes, test
    samples of which none is shared, and for what is damaged or impossible."""
    if release.class_names != bundle.student.class_names:
        raise KdcError(f"{where} cannot be compared: it has other classes, or another order of them")
    theirs = _classes_of(release, release.labels, 0, f"{where}: labels")
    seen: set[tuple[str, str]] = set()
    for variant in release.variants:
        if (variant.runtime, variant.precision) in seen:
            raise KdcError(f"{where} is damaged: it lists {variant.runtime}-{variant.precision} twice")
        seen.add((variant.runtime, variant.precision))
        if variant.top1 is not None:
            _classes_of(release, variant.top1, -1, f"{where}: top1 of {variant.name}")
    now, before = _rows(bundle_dir, bundle, labels, release, theirs, where)
    return Shared(release, len(labels), now, before, int((labels[now] != theirs[before]).sum()))


def _classes_of(release: Release, text: str, least: int, where: str) -> Ints:
    """A class for each sample of a release. Raises KdcError where one is not from `least` to the last class."""
    values, last = unpacked(text, LABEL, release.n, where).astype(np.int64), len(release.class_names) - 1
    if values.min() < least or values.max() > last:
        raise KdcError(f"{where} is damaged: classes must lie in {least}..{last}, found {values.min()}..{values.max()}")
    return values


def _rows(
    bundle_dir: Path, bundle: Bundle, labels: Ints, release: Release, theirs: Ints, where: str
) -> tuple[Ints, Ints]:
    problem = f"{where} cannot be compared: it was tested on other samples"
    ours = digests_of(bundle_dir, bundle)
    if ours is not None and release.digests is not None:
        now, before = _matched(ours, unpacked(release.digests, DIGEST, release.n, f"{where}: digests"))
        if not len(now):
            raise KdcError(f"{problem}, of which none is in both", "export both from data that share test samples")
        return now, before
    if _same_test(bundle_dir, bundle, labels, release, theirs):
        return np.arange(len(labels)), np.arange(len(labels))
    lacking = "this bundle" if ours is None else "it"
    raise KdcError(
        f"{problem}, and {lacking} does not say what each of its samples shows: an earlier kdc made it",
        "export both with this kdc, or from the same data",
    )


def _same_test(bundle_dir: Path, bundle: Bundle, labels: Ints, release: Release, theirs: Ints) -> bool:
    """Whether both were tested on the same samples in the same order, as far as an earlier kdc tells."""
    if bundle.eval.n != release.n:
        return False
    if bundle.eval.contents is not None and release.contents is not None:
        return bundle.eval.contents == release.contents
    # Names say nothing of the images, but they are all that is known.
    same_names = file_sha256(inside(bundle_dir, bundle.eval.ids, "bundle.json")) == release.ids_sha256
    return same_names and bool((labels == theirs).all())


def _matched(ours: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """Rows of equal digests, in the order of ours; of one that stands there twice, the first goes with the first."""
    _, codes = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
    keys = [_with_turn(part) for part in (codes[: len(ours)], codes[len(ours) :])]
    _, now, before = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    order = np.argsort(now)
    return now[order].astype(np.int64), before[order].astype(np.int64)


def _with_turn(codes: Ints) -> Ints:
    """A number for each code and how often it came before."""
    order = np.argsort(codes, kind="stable")
    ranked = codes[order]
    turn = np.arange(len(codes)) - np.searchsorted(ranked, ranked)
    keys = np.empty(len(codes), np.int64)
    keys[order] = ranked.astype(np.int64) * (1 << 31) + turn
    return keys


def predictions_of(shared: Shared, variant: Released) -> Ints | None:
    """What the baseline's variant predicted for the shared samples, int [S]; None where it was not measured."""
    if variant.top1 is None:
        return None
    return _classes_of(shared.release, variant.top1, -1, f"the baseline's release: top1 of {variant.name}")[
        shared.before
    ]
