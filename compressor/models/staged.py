"""Networks that show what they compute themselves."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.projections import projections_of

__all__ = ["Staged"]


class Staged(nn.Module):
    """A network that gives its stages itself."""

    def stages(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and what comes out of each stage, the embedding first: maps [B, C, H, W] or tokens [B, N, D]."""
        raise NotImplementedError

    @contextmanager
    def attention(self, matrices: list[Tensor]) -> Iterator[None]:
        """Inside, a forward pass adds those of its blocks to `matrices`. Raises KdcError at the end where there are
        none."""
        yield
        raise KdcError(f"{type(self).__name__} shows no attention matrices", "choose a loss on stages")

    @contextmanager
    def scores(self, matrices: list[Tensor]) -> Iterator[None]:
        """The same of attention before the softmax, `Q Kᵀ / √d` [B, heads, N, N], with a mask added or not."""
        yield
        raise KdcError(f"{type(self).__name__} shows no attention scores", "choose a loss on stages")

    @contextmanager
    def projections(self, tensors: list[Tensor]) -> Iterator[None]:
        """The same of queries, keys and values, [B, 3, N, D], before they are split into heads."""
        with projections_of(self, tensors):
            yield

    def vocabulary(self, states: Tensor) -> Tensor:
        """Logits over the vocabulary [B, N, V] from what comes out of the last stage. Raises KdcError where there is no
        such head."""
        raise KdcError(f"{type(self).__name__} has no head over a vocabulary", "choose a loss on stages")

    def give_vocabulary(self, like: "Staged | None", *, drawn: bool) -> str:
        """Have `vocabulary` answer, where that takes a head that is apart from the network: its own, or else one that
        begins as that of `like`, or is `drawn`. Returns which one, "" where there is none apart. Raises KdcError where
        it has none, and none may be drawn."""
        return ""

    def leave_vocabulary(self, *, keep: bool) -> None:
        """Without such a head again, as it ships. `keep`: what the head has learned is kept beside the network."""
