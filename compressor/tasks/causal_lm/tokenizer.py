"""A model's tokenizer: tokenizer.json, the tokens that start and end a document, and the template of chats.

A document begins with the tokenizer's `bos_token`, or where it has none, with its `eos_token`, as GPT-2's documents do;
it ends with `eos_token`. Whatever tokenizer.json itself would put around a text is left out. A chat begins and ends as
its template writes it.
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from compressor.errors import KdcError, first_line
from compressor.files.reading import json_value, read_text
from compressor.models.hugging_face import transformers_library
from compressor.models.tokenizers import FILE, Tokenizer, tokenizer_text
from compressor.schema.preprocess import LanguagePreprocess, Preprocess
from compressor.tasks.causal_lm.documents import Chat

__all__ = [
    "CONFIG",
    "TEMPLATE",
    "DocumentTokenizer",
    "Rendered",
    "Span",
    "kept",
    "of_documents",
    "read_tokenizer",
    "tokenizer_of",
]

CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
MOST_BYTES = 16_000_000
NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
"""Tokens that a template may be told of."""


class Span(NamedTuple):
    """What counts of a text, from which character to which; `said`: where what somebody said ends, and the template's
    own begins, which is learned and not scored."""

    first: int
    last: int
    said: int


class Rendered(NamedTuple):
    """A chat as its template writes it, and the parts of it that count."""

    text: str
    spans: tuple[Span, ...]


class DocumentTokenizer(Tokenizer):
    """`special`: the tokens of `NAMED` that it has. `template`: what chat_template.jinja says; None: there is none."""

    def __init__(self, text: str, where: str, special: dict[str, str], template: str | None) -> None:
        super().__init__(text, where)
        self.special, self.template = special, template
        for name, token in special.items():
            if token not in self.vocabulary:
                raise KdcError(f"{where}: its {name}, {token!r:.40}, is not in its vocabulary")
        if "eos_token" not in special:
            raise KdcError(
                f"{where}: nothing names the token that ends a document (eos_token)", f"name it in {CONFIG} beside it"
            )

    @property
    def end_id(self) -> int:
        return self.vocabulary[self.special["eos_token"]]

    @property
    def start_id(self) -> int:
        return self.vocabulary[self.special.get("bos_token", self.special["eos_token"])]

    @property
    def pad_id(self) -> int:
        """What a batch is filled up with, which the mask leaves out."""
        return self.vocabulary[self.special.get("pad_token", self.special["eos_token"])]

    @cached_property
    def template_sha256(self) -> str | None:
        if self.template is None:
            return None
        return hashlib.sha256(json.dumps([self.template, self.special], sort_keys=True).encode()).hexdigest()

    @property
    def key(self) -> tuple[str, int, int, str | None]:
        """All that its tokens depend on."""
        return self.sha256, self.start_id, self.end_id, self.template_sha256

    @cached_property
    def _plain(self) -> Any:
        """Without what it puts around a text; that may also leave a token's blanks out of its place (trim_offsets), so
        that one that begins in a prompt would look as if it began behind it."""
        library = self._library
        from tokenizers.processors import TemplateProcessing

        library.no_padding()
        library.no_truncation()
        library.post_processor = TemplateProcessing(single="$A", special_tokens=[])
        return library

    def tokens(self, texts: list[str], *, special: bool) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Of each text the ids, and from which character to which each stands for. `special`: what is written as a
        special token is one, as in a chat that a template wrote; else it is text like any other."""
        library = self._plain
        library.encode_special_tokens = not special
        encoded = library.encode_batch(texts, add_special_tokens=False)
        return [(row.ids, row.offsets) for row in encoded]

    def rendered(self, chat: Chat, where: str) -> Rendered:
        """The chat as text. An assistant's message counts, with whatever the template puts behind it, from where one
        that is being asked would begin; the first of a chat, which nobody asked for, from its own words on. Raises
        KdcError without a template, and where it writes a chat otherwise once it goes on."""
        if self.template is None:
            raise KdcError(
                f"{where} is a chat, and the model has no chat template",
                f"put {TEMPLATE} beside it, or give data with prompt and completion",
            )
        messages = [message._asdict() for message in chat.messages]
        whole, spans = self._render(messages, where, asked=False), []
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                head, tail = self._around(messages[:number], where)
                before = self._render(messages[:number], where, asked=True) if number else head
                until = self._render(messages[: number + 1], where, asked=False)
                if not (until.startswith(before) and whole.startswith(until)):
                    raise KdcError(
                        f"{where}: the chat template writes message {number + 1} otherwise once the chat goes on, so "
                        "that it cannot be told which tokens are the assistant's",
                        "give each answer as a prompt and a completion",
                    )
                spans.append(Span(len(before), len(until), max(len(before), len(until) - len(tail))))
        return Rendered(whole, tuple(spans))

    def _around(self, messages: list[dict[str, Any]], where: str) -> tuple[str, str]:
        """What the template writes before and behind the words of an assistant's message that comes next."""
        first, second = (
            self._render([*messages, {"role": "assistant", "content": words}], where, asked=False) for words in "01"
        )
        at = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))
        return first[:at], first[at + 1 :]

    def asked(self, prompt: str) -> str:
        """A user's message, and the beginning of the answer to it, as the chat template writes them. Raises KdcError
        without one."""
        if self.template is None:
            raise KdcError("the model has no chat template", "--mode text")
        return self._render([{"role": "user", "content": prompt}], "the prompt", asked=True)

    def _render(self, messages: list[dict[str, Any]], where: str, *, asked: bool) -> str:
        if not messages:
            return ""
        transformers_library()
        from transformers.utils.chat_template_utils import render_jinja_template

        try:  # in jinja's sandbox
            texts, _ = render_jinja_template(
                [messages], chat_template=self.template, add_generation_prompt=asked, **self.special
            )
        except Exception as error:  # a template may raise what it likes
            raise KdcError(f"{where}: the model's chat template refuses the chat: {first_line(error)}") from None
        return str(texts[0])


_KNOWN: dict[tuple[str, int, int, str | None], DocumentTokenizer] = {}
"""A `LanguagePreprocess` names its tokenizer, which was read with the model that it belongs to."""


def read_tokenizer(folder: Path, source: str, ids: Any = None) -> DocumentTokenizer:
    """That in a model's folder; raises KdcError where there is none. `ids`: a configuration whose `bos_token_id` and
    `eos_token_id` count where tokenizer_config.json names no tokens."""
    text, where = tokenizer_text(folder, source), str(folder / FILE)
    config, template = _config(folder / CONFIG), None
    special = {name: token for name in NAMED if (token := _token(config.get(name))) is not None}
    plain = Tokenizer(text, where)
    for name in ("bos_token", "eos_token"):
        if name not in special and (token := _token_of(plain, getattr(ids, f"{name}_id", None))) is not None:
            special[name] = token
    if (folder / TEMPLATE).is_file():
        template = read_text(folder / TEMPLATE, most=MOST_BYTES)
    else:
        template = _template_in(config.get("chat_template"))
    return kept(DocumentTokenizer(text, where, special, template))


def kept(tokenizer: DocumentTokenizer) -> DocumentTokenizer:
    """`tokenizer`, to be found by its key from now on."""
    return _KNOWN.setdefault(tokenizer.key, tokenizer)


def tokenizer_of(preprocess: LanguagePreprocess) -> DocumentTokenizer:
    """The tokenizer that `preprocess` names, which came with a model."""
    return _KNOWN[preprocess.tokenizer, preprocess.start_id, preprocess.end_id, preprocess.chat_template]


def of_documents(preprocess: Preprocess) -> LanguagePreprocess:
    """As what it is, for who works with documents."""
    assert isinstance(preprocess, LanguagePreprocess)
    return preprocess


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values = json_value(read_text(path, most=MOST_BYTES), str(path))
    if not isinstance(values, dict):
        raise KdcError(f"{path} is no configuration of a tokenizer")
    return values


def _template_in(value: Any) -> str | None:
    """A configuration's template; of several, the one that is called default."""
    if isinstance(value, list):
        value = next(
            (row.get("template") for row in value if isinstance(row, dict) and row.get("name") == "default"), None
        )
    return value if isinstance(value, str) else None


def _token(value: Any) -> str | None:
    """A token, as itself or as transformers describes an added one."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _token_of(tokenizer: Tokenizer, number: Any) -> str | None:
    if isinstance(number, (list, tuple)) and number:
        number = number[0]
    return next((token for token, at in tokenizer.vocabulary.items() if at == number), None)
