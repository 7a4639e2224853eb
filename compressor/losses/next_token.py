"""What of a batch of texts a language model is judged by: the shift by one token stands here, and nowhere else."""

import torch
from torch import Tensor

from compressor.losses.numbers import counting

__all__ = ["judged"]


def judged(tokens: Tensor, attended: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The positions whose answers count, and the token that each of them is to give.

    A language model's answer at a position is on the NEXT token: it counts where that one does, and never by the mask
    of its own position. What only fills a text up is on neither side of it: where texts are filled up on the left, the
    filler before the first token gives no answer, as nothing does where they are filled up on the right.

    Args:
        tokens: int64 [B, N].
        attended: [B, N], 1 or true for what is text, 0 for what fills it up.
        counts: [B, N], which tokens are learned: those of the completion, not of the prompt. None: all of the text.

    Returns:
        The positions, int64 [n], ascending, b N + i in the batch flattened to [B N]; the tokens, int64 [n].

    Raises:
        ValueError: for tokens of another shape or kind, for masks of another shape, or of floating point.
    """
    if tokens.ndim != 2 or tokens.dtype != torch.int64:
        raise ValueError(f"needs tokens int64 [B, N], found {tokens.dtype} {tuple(tokens.shape)}")
    text = counting(attended, tokens)
    learned = text & counting(counts, tokens)
    here, after = text[:, :-1], learned[:, 1:]
    sample, position = (here & after).nonzero(as_tuple=True)
    return sample * tokens.shape[1] + position, tokens[sample, position + 1]
