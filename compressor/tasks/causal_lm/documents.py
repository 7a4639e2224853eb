"""Documents, as data has them: a text, a prompt and its completion, or the messages of a chat."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from compressor.data.texts import is_seen, require_text
from compressor.errors import KdcError

__all__ = ["Chat", "Document", "Message", "Written", "document_of"]

HINT = '"text", or "prompt" and "completion", or "messages"'


class Written(NamedTuple):
    """A text, and how many characters at its start are the prompt, which is read and never counts."""

    text: str
    prompt: int = 0


class Message(NamedTuple):
    role: str
    content: str


class Chat(NamedTuple):
    """Of its messages those of the role "assistant" count."""

    messages: tuple[Message, ...]


Document = Written | Chat


def document_of(cells: Mapping[str, Any], where: str) -> Document:
    """The document that a row's cells make up, by the names of `sources.FORMS`; raises KdcError where it is none."""
    if "messages" in cells:
        return Chat(_messages(cells["messages"], where))
    if "text" in cells:
        text = require_text(cells["text"], where)
        if not is_seen(text):
            raise KdcError(f"{where}: the text is empty")
        return Written(text)
    prompt = require_text(cells["prompt"], where, "prompt")
    completion = require_text(cells["completion"], where, "completion")
    if not is_seen(completion):
        raise KdcError(f"{where}: the completion is empty, so that there is nothing to learn")
    return Written(prompt + completion, len(prompt))


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise KdcError(f"{where}: messages are no list of a role and a content each, as chats have them")
    messages = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, Mapping) or {*message} != {"role", "content"}:
            raise KdcError(f"{where}: message {number} is not a role and a content", "tools and pictures are not read")
        role, content = (require_text(message[key], where, f"{key} of message {number}") for key in ("role", "content"))
        if not role.strip():
            raise KdcError(f"{where}: message {number} has no role", "system, user or assistant")
        messages.append(Message(role, content))
    if not any(message.role == "assistant" and is_seen(message.content) for message in messages):
        raise KdcError(f"{where}: no message is the assistant's, so that there is nothing to learn")
    return tuple(messages)
