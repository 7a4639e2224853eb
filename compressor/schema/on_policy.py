"""On-policy steps: a language model learns from what it writes itself."""

from typing import Annotated

from pydantic import Field

from compressor.schema.base import Noun

__all__ = ["OnPolicy"]

Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


class OnPolicy(Noun):
    """Steps in which a language model is compared with its teacher on what it writes itself, as it will when it is used
    (GKD: Agarwal et al. 2024, arXiv 2306.13649). Which steps these are, and what is drawn in them, is a function of the
    seed and the step. Losses on labels learn from the documents in every step."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of steps, λ; 0: none."""
    max_new_tokens: Tokens = 64
    """How many tokens it writes at most, behind a prompt, or behind the first tokens of a text; a token that ends
    documents ends it."""
    prompt_tokens: Tokens = 16
    """How many tokens of a text without a prompt it goes on from, at most."""
    sampling_temperature: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """What its logits are divided by when a token is drawn from them; the losses' temperatures are their own."""
