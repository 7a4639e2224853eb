"""What others wrote (names, paths, other programs' messages), shown so that nothing in it can act.

An escape sequence moves the cursor and hides lines, a line break forges a message of ours, a bidirectional override
shows another text than is there. Such signs become visible escapes; ordinary writing of any script stays as it is.
"""

import re
import reprlib

__all__ = ["in_short", "one_line", "printable", "printable_json", "printable_lines"]

# Control characters (C0, DEL, C1), line and paragraph separators, bidirectional embeddings, overrides and isolates,
# lone surrogates, and two signs that are no characters. Joiners and marks of direction belong to writing (and emoji).
_ACTING = "\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
_SIGN = re.compile(f"[{_ACTING}]")
_IN_LINES = re.compile(f"(?![\t\n])[{_ACTING}]")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: object) -> str:
    r"""`text` in one line: "red\x1b[31m" becomes `red\\x1b[31m`, and a line break `\\n`."""
    return _SIGN.sub(_escape, str(text))


def printable_lines(text: str) -> str:
    """A text whose line breaks and tabs are our own: they stay."""
    return _IN_LINES.sub(_escape, text)


def printable_json(text: str) -> str:
    r"""JSON text that says the same: the signs, which only strings can hold, become its own escapes (`\\u202e`)."""
    return _IN_LINES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: object) -> str:
    """Prose of other programs as one line: white space and line breaks become single spaces."""
    return printable(" ".join(str(text).split()))


_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 12
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


def in_short(value: object) -> str:
    """A value as Python writes it, 60 signs at most: not more of it is looked at than that takes."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def _escape(match: "re.Match[str]") -> str:
    sign = match[0]
    code = ord(sign)
    return _NAMED.get(sign) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
