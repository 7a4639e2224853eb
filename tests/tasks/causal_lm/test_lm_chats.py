"""Chats as the templates of well-known models write them: which tokens there are, which are learned, and which make a
score."""

import json
from itertools import groupby
from pathlib import Path

import pytest

from compressor.errors import KdcError
from compressor.schema.completions import Question
from compressor.tasks.causal_lm.documents import Chat, Message
from compressor.tasks.causal_lm.encoding import encoded
from compressor.tasks.causal_lm.generation import _prompt
from compressor.tasks.causal_lm.tokenizer import DocumentTokenizer, read_tokenizer
from tests.tasks.causal_lm.kit import CHAT, tokenizer_json

QWEN = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}{% else %}"
    "{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TALK = (("user", "the ox?"), ("assistant", "in the grün field"), ("user", "and"), ("assistant", "the barn"))
GREETING = (("assistant", "hello"), ("user", "the ox?"), ("assistant", "in the field"))


def tokenizer(template: str, **special: str) -> DocumentTokenizer:
    values = json.loads(tokenizer_json())
    first = 1 + max(values["model"]["vocab"].values())
    for number, token in enumerate(SPECIAL, first):
        values["added_tokens"].append({"id": number, "content": token, "special": True, "normalized": False,
                                       "single_word": False, "lstrip": False, "rstrip": False})  # fmt: skip
    return DocumentTokenizer(json.dumps(values), "tokenizer.json", {"eos_token": "<|end|>", **special}, template)


def told(reads: DocumentTokenizer, talk: tuple[tuple[str, str], ...]) -> tuple[str, int]:
    """A chat's tokens, {those that make a score}, [others that are learned]; and its bytes."""
    (made,) = encoded([Chat(tuple(Message(*row) for row in talk))], reads, ["a chat"])
    marks = {(True, True): "{}", (True, False): "[]", (False, False): ("", "")}
    pieces = []
    for kind, run in groupby(zip(made.learned, made.scored, made.ids.tolist(), strict=True), lambda row: row[:2]):
        text = reads._library.decode([row[2] for row in run], skip_special_tokens=False)
        pieces.append(text.join(marks[bool(kind[0]), bool(kind[1])]))
    return "".join(pieces), made.bytes


START = {"bos_token": "<|start|>"}


@pytest.mark.parametrize(
    ("template", "special", "expected"),
    [
        (
            QWEN, {},
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nthe ox?<|im_end|>\n"
            "<|im_start|>assistant\n{in the grün field}[<|im_end|>\n]<|im_start|>user\nand<|im_end|>\n"
            "<|im_start|>assistant\n{the barn}[<|im_end|>\n]",
        ),
        (
            LLAMA_3, START,
            "<|start|><|start_header_id|>user<|end_header_id|>\n\nthe ox?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n{in the grün field}[<|eot_id|>]"
            "<|start_header_id|>user<|end_header_id|>\n\nand<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n{the barn}[<|eot_id|>]",
        ),
        (
            LLAMA_2, START,
            "<|start|>[INST] the ox? [/INST]{ in the grün field}[ <|end|>]<|start|>[INST] and [/INST]"
            "{ the barn}[ <|end|>]",
        ),
    ],
    ids=["qwen", "llama 3", "llama 2"],
)  # fmt: skip
def test_every_token_is_the_template_s_and_what_was_said_makes_the_score(
    template: str, special: dict[str, str], expected: str
) -> None:
    shown, size = told(tokenizer(template, **special), TALK)
    assert shown == expected
    blanks = 2 if template is LLAMA_2 else 0  # its answers begin with one
    assert size == len("in the grün field".encode() + b"the barn") + blanks


@pytest.mark.parametrize("template", [QWEN, LLAMA_3, CHAT])
def test_of_an_answer_that_nobody_asked_for_the_words_alone_count(template: str) -> None:
    shown, size = told(tokenizer(template, **START), GREETING)
    before, _, _ = shown.partition("{hello}[")
    assert before.endswith(("assistant\n", "assistant<|end_header_id|>\n\n", "<|assistant|>"))
    assert not {*"{["} & {*before}
    assert size == len("hello" + "in the field")


def test_a_chat_that_begins_with_what_counts_is_started() -> None:
    """Without a token before it nothing would ask for the first one."""
    shown, size = told(tokenizer("{% for message in messages %}{{ message.content }}{% endfor %}", **START), GREETING)
    assert shown.startswith("<|start|>{hello}")
    assert size == len("hello" + "in the field")


def test_a_template_that_refuses_a_chat_says_why() -> None:
    with pytest.raises(KdcError, match="refuses the chat: Conversation roles must alternate"):
        told(tokenizer(LLAMA_2, **START), GREETING)


@pytest.mark.parametrize(("template", "special"), [(QWEN, {}), (QWEN, START), (LLAMA_3, START)])
def test_an_answer_follows_what_transformers_would_put_before_it(template: str, special: dict[str, str]) -> None:
    from transformers import PreTrainedTokenizerFast

    reads = tokenizer(template, **special)
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=reads._library, chat_template=template, eos_token="<|end|>", **special
    )
    expected = theirs.apply_chat_template(
        [{"role": "user", "content": "the ox?"}], add_generation_prompt=True, return_dict=False
    )
    assert _prompt(Question(prompt="the ox?", model="m", mode="chat"), reads) == expected


def test_of_several_templates_it_is_the_default(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": CHAT}]
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    for listed, expected in ((named, CHAT), (named[:1], None), ([{"name": []}, 5], None)):
        config = {"eos_token": "<|end|>", "chat_template": listed}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        assert read_tokenizer(tmp_path, "hf:x").template == expected
