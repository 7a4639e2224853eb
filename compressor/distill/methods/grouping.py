"""Which classes a generalist confuses with one another: the groups that specialists are made for."""

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError

__all__ = ["confusable", "groups_of", "likeness"]

CONFUSED = 0.01
"""A class that shares less of its probability with all others stays with the generalist."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def groups_of(probabilities: Floats, count: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """`count` groups of classes, and the classes left alone, from a generalist's predictions [N, C].

    Hinton, Vinyals & Dean 2015 (arXiv 1503.02531, sec. 5.2) cluster the columns of the predictions' covariance by
    K-means. With tens of classes instead of 15,000 these columns are nearly orthogonal, each ruled by its class's own
    variance, and what K-means finds depends on its start: on ten digits, three clusters are 1, 2 and 7 classes, or 2, 4
    and 4. Here the columns of the predictions themselves are clustered, scaled to equal length (`likeness` is their
    cosine), by Ward's method: K-means' objective without a start, from single classes upwards.

    Plain Ward can end at fewer groups of two than were asked for, since a class may rather join a group than found
    one; merges after which `count` groups would be out of reach are therefore left out. Classes that are confused with
    none (`confusable`) take no part. A group has at least two classes, and not all; no class has two groups. Groups
    and classes come in order of number; no chance is in it. Raises KdcError where there cannot be so many groups.
    """
    classes = probabilities.shape[1]
    apart = confusable(probabilities)
    most = len(apart) // 2 if classes > 2 else 0
    if not 1 <= count <= most:
        reason = f"{len(apart)} of {classes} classes are confused with others on the validation split"
        if most == 0:
            raise KdcError(f"no specialists can be made: {reason}", "a specialist takes at least 2, and leaves one out")
        raise KdcError(f"--count {count}: {reason}, and a group takes at least 2", f"--count 1 to {most}")
    distance = 2 * (1 - likeness(probabilities)[np.ix_(apart, apart)])
    clusters = _merged(distance, count, classes)
    groups = sorted(tuple(sorted(int(apart[index]) for index in cluster)) for cluster in clusters if len(cluster) > 1)
    return groups, sorted(set(range(classes)) - {number for group in groups for number in group})


def likeness(probabilities: Floats) -> Floats:
    """[C, C] from 0 to 1: E[p_i p_j] over the root of E[p_i²] E[p_j²], for predictions [N, C].

    It is the covariance without the means taken off, and normalised: 0 for two classes that never share probability
    (whose covariance is below 0, by how frequent they are), so that rare classes count as much as frequent ones.
    """
    products = probabilities.T @ probabilities
    scale = np.sqrt(np.maximum(np.diag(products), np.finfo(np.float64).tiny))
    cosines: Floats = np.clip(products / scale[:, None] / scale, 0.0, 1.0)
    return cosines


def confusable(probabilities: Floats) -> Ints:
    """The classes which, weighted by their own probability, leave more than CONFUSED to all others."""
    certainty = (probabilities**2).sum(0) / np.maximum(probabilities.sum(0), np.finfo(np.float64).tiny)
    return np.flatnonzero(1 - certainty > CONFUSED)


def _merged(distance: Floats, count: int, classes: int) -> list[list[int]]:
    """Ward's merges on squared distances [n, n] (Lance & Williams 1967), as long as one is permitted."""
    cost = distance.astype(np.float64).copy()
    clusters = [[number] for number in range(len(cost))]
    while True:
        sizes = np.array([len(cluster) for cluster in clusters])
        permitted = _permitted(sizes, count, classes)
        if not permitted.any():
            return clusters
        first, second = divmod(int(np.where(permitted, cost, np.inf).argmin()), len(cost))
        n, m = sizes[first], sizes[second]
        joined = ((n + sizes) * cost[first] + (m + sizes) * cost[second] - sizes * cost[first, second]) / (
            n + m + sizes
        )
        cost[first], cost[:, first] = joined, joined
        cost = np.delete(np.delete(cost, second, 0), second, 1)
        clusters[first] += clusters.pop(second)


def _permitted(sizes: Ints, count: int, classes: int) -> NDArray[np.bool_]:
    """[n, n]: whether two clusters of these sizes may merge: `count` groups can still come of what is left (two single
    classes make one), and no group holds all classes. The second number is above the first."""
    single = sizes == 1
    pairs, mixed = np.outer(single, single), single[:, None] != single
    groups, left = int((~single).sum()), int(single.sum())
    after = np.where(
        pairs, groups + 1 + (left - 2) // 2, np.where(mixed, groups + (left - 1) // 2, groups - 1 + left // 2)
    )
    permitted: NDArray[np.bool_] = (after >= count) & (sizes[:, None] + sizes < classes)
    if count == 1 and groups:
        permitted &= ~pairs  # two groups could only merge to one that holds all classes
    return np.triu(permitted, 1)
