"""Networks that learn from one another: what their losses ask of how they read documents."""

from collections.abc import Mapping

from compressor.errors import KdcError
from compressor.losses import LOSSES
from compressor.schema.preprocess import LanguagePreprocess
from compressor.schema.recipe import Recipe
from compressor.tasks.causal_lm.pairs import columns_of, differs

__all__ = ["grouping", "require_same_tokens"]


def grouping(inputs: Mapping[str, LanguagePreprocess], recipe: Recipe) -> str | None:
    """The loss that compares groups of tokens, for which the teacher is shown its own; None where there is none. Raises
    KdcError where no teacher reads along."""
    name = next((term.name for term in recipe.losses if term.ever and _by_groups(term.name)), None)
    if name is not None and "teacher" not in inputs:
        raise KdcError(
            f"{name} compares the tokens of two networks, and this training has no teacher that reads them",
            "--teacher run:DIR or hf:PATH; a student of its own kind learns by kd",
        )
    return name


def require_same_tokens(inputs: Mapping[str, LanguagePreprocess], recipe: Recipe) -> int | None:
    """How many values for a token mean the same to student and teacher, where they have unequal numbers; None: all.
    Raises KdcError where a loss compares two networks token by token that do not read the same ones."""
    (first, ours), *others = inputs.items()
    columns = None
    for key, theirs in others:
        compares = next((term.name for term in recipe.losses if term.ever and _compares(term.name, key)), None)
        if compares is None:
            continue
        if (word := differs(ours, theirs)) is not None:
            raise KdcError(
                f"{compares} compares {first} and {key} token by token, and they have another {word}",
                f"a loss between any two tokenizers: {', '.join(_of_groups())}; a student of its teacher's tokens: "
                "--student layers:N; or labels: cross_entropy alone",
            )
        if ours.max_length > theirs.max_length:
            raise KdcError(
                f"{compares}: the {first} reads blocks of {ours.max_length} tokens, and the {key} of "
                f"{theirs.max_length}",
                f"--max-length {theirs.max_length}",
            )
        rows = columns_of(ours, theirs)
        if rows is not None and key != "teacher":
            raise KdcError(
                f"{compares} compares {first} and {key} value by value, and they have {ours.vocabulary:,} and "
                f"{theirs.vocabulary:,} for a token",
                "give peers the student's vocab_size",
            )
        columns = rows if key == "teacher" else columns
    return columns


def _of_groups() -> list[str]:
    return [name for name in LOSSES if _by_groups(name)]


def _by_groups(name: str) -> bool:
    return name in LOSSES and LOSSES[name].mean_over == "groups"


def _compares(name: str, key: str) -> bool:
    """Whether a loss compares the student with the network `key` token by token; peers learn by their teacher, too."""
    if name not in LOSSES or _by_groups(name):
        return False
    kinds = ("teacher_",) if key == "teacher" else ("teacher_", "peer_")
    return any(need.startswith(kinds) for need in LOSSES[name].needs)
