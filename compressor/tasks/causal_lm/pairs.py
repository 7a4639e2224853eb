"""Documents as two tokenizers cut them: which tokens of student and teacher stand for the same text, and blocks of both
that hold the same text."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.samples import Split
from compressor.errors import KdcError
from compressor.schema.preprocess import LanguagePreprocess
from compressor.tasks.causal_lm.alignment import TokenBytes, aligned, common_rows, numbered, teacher_token_of
from compressor.tasks.causal_lm.documents import Chat, Document
from compressor.tasks.causal_lm.encoding import Block, Encoded
from compressor.tasks.causal_lm.opening import documents_of
from compressor.tasks.causal_lm.tokenizer import DocumentTokenizer, tokenizer_of

__all__ = ["Pairs", "columns_of", "cut", "differs", "groups_in", "paired"]

Numbers = NDArray[np.int64]


class Pairs(NamedTuple):
    """`groups`: of each document, the group of each token of the student and of the teacher; -1: in none. `blocks`:
    those of the student and of the teacher that hold the same text. `token_of`: the teacher's token of the same bytes
    for each of the student's logits, or -1."""

    groups: list[tuple[Numbers, Numbers]]
    blocks: list[tuple[Block, Block]]
    token_of: Numbers

    def told(self, name: str) -> str:
        """A line for people; `name`: the loss that asks for it."""
        count = sum(int(ours.max(initial=-1)) + 1 for ours, _ in self.groups)
        alone = sum(_alone(*sides) for sides in self.groups)
        common = int((self.token_of >= 0).sum())
        return (
            f"{name}: student and teacher have {common:,} tokens in common, of {len(self.token_of):,} of the student; "
            f"they end tokens together {count:,} times in the training documents, {alone / max(1, count):.0%} of them "
            f"after a token of each; {len(self.blocks):,} blocks, which end where both end a token"
        )


def paired(
    split: Split, student: Sequence[Encoded], teacher: Sequence[Encoded],
    ours: LanguagePreprocess, theirs: LanguagePreprocess,
) -> Pairs:  # fmt: skip
    """A split's documents, aligned as wholes and then cut into blocks.

    Args:
        student, teacher: the documents as both read them (`encoded_split`).
        ours, theirs: how they read them.

    Raises:
        KdcError: for a tokenizer whose tokens do not say which bytes they stand for, where the tokens of a document
            spell another text on either side, and where the vocabularies have no token in common.
    """
    sides = tokenizer_of(ours), tokenizer_of(theirs)
    spelling = TokenBytes.read(sides[0].text, "the student"), TokenBytes.read(sides[1].text, "the teacher")
    token_of = teacher_token_of(*spelling, ours.vocabulary)
    if not (token_of >= 0).any():
        raise KdcError("student and teacher have no token in common", "another model")
    groups, blocks = [], []
    for number, (document, name) in enumerate(zip(documents_of(split), split.ids, strict=True)):
        samples = student[number], teacher[number]
        spelt = [
            _spelt(sample, document, bytes_of, tokenizer, name)
            for sample, bytes_of, tokenizer in zip(samples, spelling, sides, strict=True)
        ]
        made, cuts = cut(*aligned(spelt[0], spelt[1], name), ours.max_length, theirs.max_length)
        groups.append(made)
        for begin, end in pairwise(cuts):
            if samples[0].learned[begin[0] + 1 : end[0] + 1].any():
                blocks.append((Block(number, begin[0], end[0]), Block(number, *_some(begin[1], end[1]))))
    return Pairs(groups, blocks, token_of)


def _spelt(
    sample: Encoded, document: Document, bytes_of: TokenBytes, tokenizer: DocumentTokenizer, name: str
) -> list[bytes]:
    """The bytes of each token of a document; of those that kdc put around its text, none."""
    ids = sample.ids.tolist()
    if not isinstance(document, Chat):
        return [b"", *bytes_of.of_text(ids[1:-1], document.text), b""]
    head = [b""] if ids[0] == tokenizer.start_id else []
    return [*head, *bytes_of.of_text(ids[len(head) :], tokenizer.rendered(document, name).text)]


def cut(
    ours: Numbers, theirs: Numbers, most_ours: int, most_theirs: int
) -> tuple[tuple[Numbers, Numbers], list[tuple[int, int]]]:
    """Where a document is cut into blocks, so that both sides end a group there.

    Args:
        ours, theirs: the groups of a document's tokens (`aligned`), int64 [n] and [m].
        most_ours, most_theirs: tokens of a block.

    Returns:
        The groups; -1 for one that does not fit into a block, and so is cut itself. And the cuts, one more than there
        are blocks, each the last token before it of student and teacher: a block's tokens begin with that one, and
        each is asked for the one behind it.
    """
    ends = np.stack([_ends(ours), _ends(theirs)], 1)
    ends[-1] = len(ours) - 1, len(theirs) - 1  # with what stands for no text behind the last group
    cuts, at, most = [(0, 0)], 0, np.array([most_ours, most_theirs])
    groups = ours.copy(), theirs.copy()
    while at < len(ends):
        begin = np.array(cuts[-1])
        fits = min(int(np.searchsorted(ends[:, side], begin[side] + most[side], "right")) for side in (0, 1))
        if fits > at:
            cuts.append((int(ends[fits - 1, 0]), int(ends[fits - 1, 1])))
            at = fits
            continue
        long = ends[at] - begin
        parts = int((-(-long // most)).max())
        cuts += [tuple((begin + long * part // parts).tolist()) for part in range(1, parts + 1)]
        for side in groups:
            side[side == at] = -1
        at += 1
    return groups, cuts


def _ends(groups: Numbers) -> Numbers:
    """The last token of each group."""
    held = np.flatnonzero(groups >= 0)
    count = int(groups.max(initial=-1)) + 1
    return held[np.searchsorted(groups[held], np.arange(count), "right") - 1]


def _some(start: int, stop: int) -> tuple[int, int]:
    """At least one token, since a network answers to no empty block: of a group that was cut, which counts for
    nothing."""
    return start, max(stop, start + 1)


def _alone(ours: Numbers, theirs: Numbers) -> int:
    """How many groups are one token on either side."""
    counts = [np.bincount(side[side >= 0]) for side in (ours, theirs)]
    if len(counts[0]) != len(counts[1]):
        return 0
    return int(((counts[0] == 1) & (counts[1] == 1)).sum())


def groups_in(
    pairs: Pairs, blocks: Sequence[tuple[Block, Block]], student: Sequence[Encoded], teacher: Sequence[Encoded]
) -> dict[str, Tensor]:
    """The groups of the learned tokens of these blocks, as losses on both take them: student_groups, teacher_groups."""
    groups, learned = [], []
    for block, other in blocks:
        ours, theirs = slice(block.start + 1, block.stop + 1), slice(other.start + 1, other.stop + 1)
        of_student, of_teacher = pairs.groups[block.document]
        groups.append((of_student[ours], of_teacher[theirs]))
        learned.append((student[block.document].learned[ours], teacher[block.document].learned[theirs]))
    made = numbered(groups, learned)
    return {name: torch.from_numpy(side) for name, side in zip(("student_groups", "teacher_groups"), made, strict=True)}


def differs(ours: LanguagePreprocess, theirs: LanguagePreprocess) -> str | None:
    """What of two networks' reading differs, so that their tokens are not the same; None where nothing does."""
    word = ours.reads_as(theirs)
    if word == "tokenizer" and _common_rows(ours, theirs) is not None:
        return ours.reads_as(theirs.model_copy(update={"tokenizer": ours.tokenizer}))
    return word


def columns_of(ours: LanguagePreprocess, theirs: LanguagePreprocess) -> int | None:
    """How many values for a token mean the same, of two networks that read the same tokens; None: all. The others fill
    the rows up to what suits a machine, and are of no token."""
    if ours.vocabulary == theirs.vocabulary:
        return None
    rows = _common_rows(ours, theirs)
    assert rows is not None
    return rows


def _common_rows(ours: LanguagePreprocess, theirs: LanguagePreprocess) -> int | None:
    return common_rows(tokenizer_of(ours).text, tokenizer_of(theirs).text)
