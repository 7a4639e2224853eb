"""Documents of every source: read, checked, split, and cut into blocks in which each token is asked for once."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.schema.student import Columns
from compressor.tasks.causal_lm.documents import Chat, Message, Written
from compressor.tasks.causal_lm.encoding import Block, Encoded, blocks_of, encoded
from compressor.tasks.causal_lm.opening import open_data
from compressor.tasks.causal_lm.tokenizer import DocumentTokenizer
from tests.kit import Hearing
from tests.tasks.causal_lm.kit import CHAT, documents, tokenizer_json, write_jsonl

ROWS = [{"text": text} for text in documents(40)]


@pytest.fixture(scope="module")
def tokenizer() -> DocumentTokenizer:
    special = {"bos_token": "<|start|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
    return DocumentTokenizer(tokenizer_json(), "tokenizer.json", special, CHAT)


def opened(reference: str, **more: Any) -> tuple[Dataset, Hearing]:
    heard = Hearing()
    return open_data(reference, skip_bad=more.pop("skip_bad", False), progress=heard, **more), heard


def read(data: Dataset) -> set[Any]:
    return {split.read(row) for split in (data.train, data.validation, data.test) for row in range(len(split))}


def test_every_source_gives_the_same_documents(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_jsonl(tmp_path / "data.jsonl", ROWS)
    texts = [row["text"] for row in ROWS]
    with (tmp_path / "data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    pq.write_table(pa.table({"text": texts}), tmp_path / "data.parquet")
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "hf")
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    for number, text in enumerate(texts):
        (tmp_path / "folder" / "deep" / f"{number}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "lines.txt").write_text("\n\n".join(texts), encoding="utf-8")
    places = ("jsonl:data.jsonl", "csv:data.csv", "parquet:data.parquet", "hf:hf", "folder:folder", "text:lines.txt")
    found = [opened(f"{scheme}:{tmp_path / name}")[0] for scheme, name in (place.split(":") for place in places)]
    for data in found:
        assert read(data) == {Written(text) for text in texts}
        assert data.info.class_names == ()
        assert data.info.counts == {"train": 29, "validation": 3, "test": 8}
    assert len({data.info.fingerprint for data in found}) == 1


def test_a_prompt_is_told_from_its_completion(tmp_path: Path) -> None:
    rows = [{"question": f"{number} and one?", "answer": f" {number + 1}"} for number in range(12)]
    data, _ = opened(f"jsonl:{write_jsonl(tmp_path / 'a.jsonl', rows)}", columns=Columns(text=("question", "answer")))
    assert Written("3 and one? 4", 10) in read(data)
    named = [{"prompt": row["question"], "completion": row["answer"]} for row in rows]
    assert read(opened(f"jsonl:{write_jsonl(tmp_path / 'b.jsonl', named)}")[0]) == read(data)


def test_splits_of_folders_and_tables_are_kept(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        (tmp_path / "folder" / split).mkdir(parents=True)
        (tmp_path / "folder" / split / "a.txt").write_text(f"text {number}", encoding="utf-8")
    assert opened(f"folder:{tmp_path / 'folder'}")[0].validation.read(0) == Written("text 1")
    rows = [{"text": f"row {number}", "split": ("train", "validation", "test")[number % 3]} for number in range(6)]
    data, _ = opened(f"jsonl:{write_jsonl(tmp_path / 'data.jsonl', rows)}")
    assert read(data) == {Written(f"row {number}") for number in range(6)}
    assert {data.test.read(0).text, data.test.read(1).text} == {"row 2", "row 5"}


def test_copies_go_into_one_split(tmp_path: Path) -> None:
    rows = [*ROWS, *({"text": row["text"].upper()} for row in ROWS)]
    data, _ = opened(f"jsonl:{write_jsonl(tmp_path / 'data.jsonl', rows)}")
    held = {split: {data_split.read(row).text.lower() for row in range(len(data_split))}
            for split, data_split in (("train", data.train), ("test", data.test))}  # fmt: skip
    assert not held["train"] & held["test"]
    assert "copies of other documents of their split: " in " ".join(data.info.notes)
    [note] = [note for note in data.info.notes if note.startswith("copies of")]
    copies = {
        name: len(split) - len({*split.contents.tolist()})
        for name, split in (("train", data.train), ("test", data.test))
    }
    assert f"{copies['train']} of train, " in note
    assert f"{copies['test']} of test (intervals" in note
    assert not [
        note for note in opened(f"jsonl:{write_jsonl(tmp_path / 'one.jsonl', ROWS)}")[0].info.notes if "copies" in note
    ]


CHATS: dict[str, Any] = {
    "no list": "hello",
    "empty": [],
    "no content": [{"role": "user"}],
    "a picture": [{"role": "user", "content": [{"type": "image"}]}],
    "nobody answers": [{"role": "user", "content": "hello"}],
    "an empty answer": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": " "}],
}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "\xff"}', "line 2 is not UTF-8 (byte 0xff)"),
        (b'{"text": ""}', "line 2: the text is empty"),
        (b'{"text": "\\u200b "}', "line 2: the text is empty"),
        (b'{"text": "a\\u0000b"}', "holds a zero byte"),
        (b'{"text": "\\ud800"}', "holds half a character"),
        (b'{"text": 5}', "the text is no text (5)"),
        (b'{"other": "x"}', "line 2: the text is missing"),
        (b'{"text": "x"', "not JSON"),
        (b'["x"]', "line 2 is no JSON object"),
        (b'{"text": ' + b"[" * 2000 + b"]" * 2000 + b"}", "nested deeper"),
    ],
)
def test_what_is_no_document_is_said_in_one_line(tmp_path: Path, line: bytes, said: str) -> None:
    (tmp_path / "data.jsonl").write_bytes(b'{"text": "first"}\n' + line + b"\n")
    with pytest.raises(KdcError) as caught:
        opened(f"jsonl:{tmp_path / 'data.jsonl'}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS.keys())
def test_a_chat_that_is_none_is_refused(tmp_path: Path, chat: Any) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [{"messages": chat}] * 5)
    with pytest.raises(KdcError, match=r"line 1: .*message") as caught:
        opened(f"jsonl:{path}")
    assert "and 4 more documents" in str(caught.value)


def test_skip_bad_leaves_them_out_and_says_so(tmp_path: Path) -> None:
    data, heard = opened(f"jsonl:{write_jsonl(tmp_path / 'data.jsonl', [*ROWS, {'text': ' '}])}", skip_bad=True)
    assert data.info.skipped == ("train/40",)
    assert any("line 41: the text is empty" in line for line in heard.warnings)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": 1}, "no columns that make a document; its columns: id"),
        ({"text": "a", "messages": []}, "columns for several kinds of documents: messages and text"),
        ({"prompt": "a", "completion": ""}, "the completion is empty"),
    ],
)
def test_columns_that_tell_nothing_are_refused(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(KdcError, match=said):
        opened(f"jsonl:{write_jsonl(tmp_path / 'data.jsonl', [row] * 5)}")


def test_a_line_that_is_huge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.tasks.causal_lm.sources.MOST_LINE", 100)
    with pytest.raises(KdcError, match="line 1 is longer than 100 bytes"):
        opened(f"jsonl:{write_jsonl(tmp_path / 'data.jsonl', [{'text': 'x' * 200}])}")


def test_too_few_documents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="train has 2 different documents, and splitting test and validation off takes"):
        opened(f"jsonl:{write_jsonl(tmp_path / 'data.jsonl', ROWS[:2])}")


def one(tokenizer: DocumentTokenizer, document: Written | Chat) -> Encoded:
    (made,) = encoded([document], tokenizer, ["a document"])
    return made


def test_a_text_is_started_and_ended_and_counts_whole(tokenizer: DocumentTokenizer) -> None:
    text = "the farmer saw the grün ox 🐂."
    made = one(tokenizer, Written(text))
    assert (made.ids[0], made.ids[-1]) == (tokenizer.start_id, tokenizer.end_id) == (1, 0)
    assert tokenizer._library.decode(made.ids[1:-1].tolist()) == text
    assert made.learned.tolist() == [False, *[True] * (len(made.ids) - 1)]
    assert made.scored.tolist() == [False, *[True] * (len(made.ids) - 2), False]
    assert made.bytes == len(text.encode()) == len(text) + 1 + 3


def test_a_special_token_in_a_text_is_text(tokenizer: DocumentTokenizer) -> None:
    made = one(tokenizer, Written("ends <|end|> here"))
    assert (made.ids == tokenizer.end_id).sum() == 1
    assert made.bytes == 17


def test_a_prompt_never_counts(tokenizer: DocumentTokenizer) -> None:
    """Whatever the border cuts through: a token that begins in the prompt is the prompt's, and its bytes are, too."""
    whole = "the farmer saw the plough"
    with pytest.raises(KdcError, match="a document: the tokenizer makes no token of what counts in it"):
        one(tokenizer, Written(whole, len(whole) - 1))
    for prompt in range(len(whole) - len(" plough")):
        made = one(tokenizer, Written(whole, prompt))
        counted = made.ids[made.scored].tolist()
        assert tokenizer._library.decode(counted) == whole[len(whole) - made.bytes :]
        assert made.bytes <= len(whole) - prompt
        ids = one(tokenizer, Written(whole)).ids
        assert (made.ids == ids).all()
    assert one(tokenizer, Written(whole, 10)).bytes == len(whole) - 10  # before " saw": a token begins there


def test_a_blank_that_ends_a_prompt_is_the_prompt_s() -> None:
    """RoBERTa's tokenizer.json, and those made like it, say of a token where it stands without its blanks."""
    from tokenizers import Tokenizer, processors

    trimming = Tokenizer.from_str(tokenizer_json())
    trimming.post_processor = processors.ByteLevel(trim_offsets=True)
    made = DocumentTokenizer(trimming.to_str(), "tokenizer.json", {"eos_token": "<|end|>"}, None)
    assert trimming.encode("ox yes", add_special_tokens=False).offsets[2] == (3, 3)
    counted = one(made, Written("ox yes", 3))
    assert made._library.decode(counted.ids[counted.scored].tolist()) == "yes"
    assert counted.bytes == 3
    ended = one(made, Written("the ox "))
    assert made._library.decode(ended.ids[ended.scored].tolist()) == "the ox "
    assert ended.bytes == 7


def test_of_a_chat_the_assistant_counts(tokenizer: DocumentTokenizer) -> None:
    chat = Chat((
        Message("user", "the ox?"), Message("assistant", "in the field"), Message("user", "and <|end|>"),
        Message("assistant", "the barn"),
    ))  # fmt: skip
    made = one(tokenizer, chat)
    library = tokenizer._library
    assert library.decode(made.ids[made.learned].tolist(), skip_special_tokens=False) == (
        "in the field<|end|>the barn<|end|>"
    )
    assert library.decode(made.ids[made.scored].tolist(), skip_special_tokens=False) == "in the fieldthe barn"
    assert made.bytes == len("in the fieldthe barn")
    assert made.ids[0] == tokenizer.vocabulary["<|user|>"]  # as the template has it


def test_a_chat_needs_a_template_that_goes_on(tokenizer: DocumentTokenizer) -> None:
    chat = Chat((Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")))

    def with_template(template: str | None) -> DocumentTokenizer:
        return DocumentTokenizer(tokenizer_json(), "tokenizer.json", {"eos_token": "<|end|>"}, template)

    with pytest.raises(KdcError, match="the model has no chat template"):
        one(with_template(None), chat)
    last = "{% for message in messages %}{{ message.content if loop.last else '' }}{% endfor %}"
    with pytest.raises(KdcError, match="writes message 2 otherwise once the chat goes on"):
        one(with_template(last), chat)
    with pytest.raises(KdcError, match="refuses the chat: no"):
        one(with_template("{{ raise_exception('no') }}"), chat)
    with pytest.raises(KdcError, match="refuses the chat"):  # the sandbox
        one(with_template("{{ messages.__class__.__mro__[1].__subclasses__() }}"), chat)


@pytest.mark.parametrize("most", [4, 5, 7, 16, 1000])
def test_blocks_ask_for_each_token_once(tokenizer: DocumentTokenizer, most: int) -> None:
    samples = [one(tokenizer, Written(text)) for text in documents(9)]
    asked = [np.zeros(len(sample.ids), np.int64) for sample in samples]
    for number, start, stop in blocks_of(samples, most):
        assert 1 <= stop - start <= most
        asked[number][start + 1 : stop + 1] += 1
    for sample, times in zip(samples, asked, strict=True):
        assert times.tolist() == sample.learned.astype(int).tolist()


def test_blocks_of_a_long_prompt_alone_are_left_out(tokenizer: DocumentTokenizer) -> None:
    text = "the farmer saw the plough and the field and the barn of day 9."
    made = one(tokenizer, Written(text, len(text) - 2))
    blocks = blocks_of([made], 4)
    first = int(made.learned.argmax())
    assert blocks[0] == Block(0, (first - 1) // 4 * 4, min((first - 1) // 4 * 4 + 4, len(made.ids) - 1))
    assert sum(made.learned[start + 1 : stop + 1].sum() for _, start, stop in blocks) == made.learned.sum()


def test_what_the_tokenizer_names_must_be_there() -> None:
    with pytest.raises(KdcError, match=r"its eos_token, '</s>', is not in its vocabulary"):
        DocumentTokenizer(tokenizer_json(), "tokenizer.json", {"eos_token": "</s>"}, None)
    with pytest.raises(KdcError, match="nothing names the token that ends a document"):
        DocumentTokenizer(tokenizer_json(), "tokenizer.json", {"bos_token": "<|start|>"}, None)
    made = DocumentTokenizer(tokenizer_json(), "tokenizer.json", {"eos_token": "<|end|>"}, None)
    assert made.start_id == made.end_id == 0  # as GPT-2's documents begin
    assert json.loads(made.text)["padding"] is None
