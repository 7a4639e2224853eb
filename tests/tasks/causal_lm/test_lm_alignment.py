"""Tokens of two tokenizers on one text: tokenizers of four kinds, made on the spot, and groups told by hand."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from compressor.errors import KdcError
from compressor.tasks.causal_lm.alignment import TokenBytes, aligned, common_rows, numbered, teacher_token_of

tokenizers = pytest.importorskip("tokenizers", reason="kdc[text]")

TEXTS = [
    "In the beginning God created the heaven and the earth.",
    "  two spaces,\ttabs\nand\r\nlines ",
    "naïve café, Ωmega, 東京, 🙂👍🏽, é as two: e\u0301",
    "running runner ran; 12345 67.89",
    "x",
]
LEARNED = [*TEXTS[:2], "the running of the runners in the heaven " * 5]


def byte_level(size: int = 300, *, prefix: bool = False) -> Any:
    """As GPT-2, Llama 3 and Qwen have it."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    made.train_from_iterator(LEARNED, trainer)
    return made


def marked(*, prepend: bool) -> Any:
    """As Llama 2 (`prepend`) and Gemma have it: ▁ for a space, and tokens for the bytes of what is not in the
    vocabulary."""
    text = [line.replace(" ", "▁") for line in LEARNED]
    learning = tokenizers.Tokenizer(tokenizers.models.BPE())
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learning.train_from_iterator(
        text, tokenizers.trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    )
    model = json.loads(learning.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=model["vocab"], merges=merges, byte_fallback=True, unk_token="<unk>")
    )
    steps = [tokenizers.normalizers.Replace(" ", "▁")]
    if prepend:
        steps.insert(0, tokenizers.normalizers.Prepend("▁"))
    made.normalizer = tokenizers.normalizers.Sequence(steps)
    made.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse(),
            *([tokenizers.decoders.Strip(" ", 1, 0)] if prepend else []),
        ]
    )  # fmt: skip
    made.add_special_tokens(["<s>", "</s>"])
    return made


def metaspace() -> Any:
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = tokenizers.decoders.Metaspace(prepend_scheme="first")
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=150, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


KINDS: dict[str, Callable[[], Any]] = {
    "byte-level": byte_level,
    "byte-level, larger": lambda: byte_level(400),
    "byte-level with a space before": lambda: byte_level(prefix=True),
    "Llama 2": lambda: marked(prepend=True),
    "Gemma": lambda: marked(prepend=False),
}


def spelt(tokenizer: Any, text: str) -> list[bytes]:
    return TokenBytes.read(tokenizer.to_str(), "here").of_text(tokenizer.encode(text).ids, text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_a_texts_tokens_are_the_text(kind: str, text: str) -> None:
    assert b"".join(spelt(KINDS[kind](), text)) == text.encode()


def test_metaspace_spells_its_texts_too() -> None:
    text = TEXTS[0]
    assert b"".join(spelt(metaspace(), text)) == text.encode()


@pytest.mark.parametrize("student", KINDS)
@pytest.mark.parametrize("teacher", KINDS)
def test_groups_end_where_both_sides_end_a_token_and_nowhere_else(student: str, teacher: str) -> None:
    """Against a walk over the bytes, one by one."""
    for text in TEXTS:
        ours, theirs = spelt(KINDS[student](), text), spelt(KINDS[teacher](), text)
        groups = aligned(ours, theirs, "here")
        ends: list[set[int]] = []
        for side in (ours, theirs):
            at, of_side = 0, set()
            for token in side:
                at += len(token)
                of_side.add(at)
            ends.append(of_side)
        number, of_byte = 0, []
        for at in range(1, len(text.encode()) + 1):
            of_byte.append(number)
            number += at in ends[0] and at in ends[1]
        for side, numbers in zip((ours, theirs), groups, strict=True):
            at = 0
            for token, group in zip(side, numbers, strict=True):
                expected = set(of_byte[at : at + len(token)]) or {-1}
                assert expected == {group}
                at += len(token)


def test_groups_by_hand() -> None:
    """Where both end together; where one has more tokens; where ends lie across; tokens for no text on either side."""
    ours = [b"", b"run", b"ning", b" a", b"b", b"c", b" \xf0\x9f", b"\x99\x82", b""]
    theirs = [b"running", b"", b" ", b"ab", b"c", b" ", b"\xf0\x9f\x99\x82"]
    groups = aligned(ours, theirs, "here")
    assert groups[0].tolist() == [-1, 0, 0, 1, 1, 2, 3, 3, -1]
    assert groups[1].tolist() == [0, -1, 1, 1, 2, 3, 3]
    assert [side.dtype for side in groups] == [np.int64, np.int64]


def test_a_token_that_only_begins_a_text_does_not_swallow_it() -> None:
    """trl's #5885: with a BOS on one side alone, all of a text became one group."""
    text = [b"a", b"b", b"c"]
    assert [side.tolist() for side in aligned([b"", *text], text, "here")] == [[-1, 0, 1, 2], [0, 1, 2]]


def test_texts_without_tokens_have_no_groups() -> None:
    assert [side.tolist() for side in aligned([], [], "here")] == [[], []]
    assert [side.tolist() for side in aligned([b""], [], "here")] == [[-1], []]


@pytest.mark.parametrize(
    ("student", "teacher", "said"),
    [
        ([b"The"], [b"the"], "from byte 0 on: 'The' and 'the'"),
        ([b"a", b"b"], [b"a"], "from byte 1 on: 'b' and the end"),
        ([b"a "], [b"a", b""], "from byte 1 on: ' ' and the end"),
    ],
)
def test_other_texts_are_refused(student: list[bytes], teacher: list[bytes], said: str) -> None:
    with pytest.raises(KdcError, match="text 7: the tokens of student and teacher spell different texts") as caught:
        aligned(student, teacher, "text 7")
    assert said in str(caught.value)


def test_an_unknown_character_is_no_text_and_so_refused() -> None:
    tokenizer = metaspace()
    with pytest.raises(KdcError, match="spell different texts"):
        aligned(spelt(tokenizer, "a ∮ b"), spelt(byte_level(), "a ∮ b"), "here")


def test_groups_of_several_texts_are_numbered_on_and_those_with_tokens_of_a_prompt_are_left_out() -> None:
    groups = [
        aligned([b"ab", b"c", b"d"], [b"a", b"b", b"cd"], "first"),
        aligned([b"x", b"yz", b""], [b"xy", b"z"], "second"),
    ]
    learned = [
        (np.array([True, True, True]), np.array([False, True, True])),
        (np.array([True, True, True]), np.array([True, True])),
    ]
    ours, theirs = numbered(groups, learned)
    assert ours.tolist() == [-1, 1, 1, 2, 2, -1]
    assert theirs.tolist() == [-1, 1, 2, 2]


def test_common_tokens_go_by_bytes_and_not_by_how_they_are_written() -> None:
    first, second = marked(prepend=False), byte_level(400)
    ours, theirs = (TokenBytes.read(side.to_str(), "here") for side in (first, second))
    map_to = teacher_token_of(ours, theirs, rows=340)
    assert map_to.shape == (340,)
    assert (map_to[len(ours.tokens) :] == -1).all(), "rows that no token has"
    written, known = first.get_vocab(), second.get_vocab()
    assert map_to[written["▁"]] == known["Ġ"]
    assert map_to[written["and"]] == known["and"]
    assert map_to[written["<0xF0>"]] == known["ð"]
    assert map_to[written["<s>"]] == -1, "what marks no text has no bytes"
    assert map_to[written["e"]] == known["e"]
    assert map_to[written["<0x65>"]] == -1, "texts are made of e itself"
    pairs = [(at, there) for at, there in enumerate(map_to) if there >= 0]
    assert all(ours.tokens[at] == theirs.tokens[there] for at, there in pairs)
    assert len({there for _, there in pairs}) == len(pairs) > 250


def test_tokenizers_that_are_the_same_but_for_what_they_put_around_a_text() -> None:
    tokenizer = byte_level()
    before = tokenizer.to_str()
    rows = tokenizer.get_vocab_size()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.enable_padding(length=128)
    assert common_rows(before, tokenizer.to_str()) == rows
    tokenizer.add_tokens(["<tool>"])
    assert common_rows(before, tokenizer.to_str()) is None
    assert common_rows(tokenizer.to_str(), tokenizer.to_str()) == rows + 1
    assert common_rows(before, byte_level(400).to_str()) is None


def test_tokens_that_were_added_are_text_unless_they_are_special() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens(["é é"])
    tokenizer.add_special_tokens(["<|end|>"])
    tokens = TokenBytes.read(tokenizer.to_str(), "here").tokens
    assert tokens[tokenizer.token_to_id("é é")] == "é é".encode()
    assert tokens[tokenizer.token_to_id("<|end|>")] is None


def test_tokenizers_that_do_not_say_their_bytes_are_refused() -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(KdcError, match=r"bert/tokenizer.json: its tokens do not say which bytes .*decoder: none"):
        TokenBytes.read(tokenizer.to_str(), "bert/tokenizer.json")
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    with pytest.raises(KdcError, match="decoder: WordPiece"):
        TokenBytes.read(tokenizer.to_str(), "bert/tokenizer.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["model"].pop("vocab"),
        lambda values: values["added_tokens"].append({"id": 10**12, "content": "x", "special": False}),
        lambda values: values["added_tokens"].append({"id": -1, "content": "x", "special": False}),
    ],
)
def test_files_that_say_nonsense_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(byte_level().to_str())
    change(values)
    with pytest.raises(KdcError, match=r"no tokenizer with a vocabulary|numbers beyond 0 to"):
        TokenBytes.read(json.dumps(values), "here")
