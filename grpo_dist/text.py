"""Small pieces of messages: plurals, sizes, suggestions, the first line of an error, and what terminals may be sent."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, TextIO


def plural(count: int, one: str, many: str | None = None) -> str:
    """1 step, 2 steps, 10,000 steps."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def first_few(items: Sequence[object], most: int) -> str:
    """a, b and 3 more."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


def gib(size: float) -> str:
    """Bytes: 84933175705 → 79.1 GiB."""
    return f"{size / 2**30:,.1f} GiB"


def two_decimals(value: float | None) -> str:
    """0.5 → 0.50; a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:.2f}"


CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What terminals obey, what changes the direction of writing, and what cannot be encoded; not \\n and \\t."""
LEFT_BY_JSON = re.compile("[\x7f-\x9f]")
COLOURS = re.compile("(\x1b\\[[0-9;]{0,16}m)")
UNFINISHED = re.compile("(\x1b(\\[[0-9;]{0,16})?|\r)?\\Z")


def printable(text: str) -> str:
    """The text with control characters, such as those that begin an escape sequence of a terminal, written out."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_in_json(text: str) -> str:
    """As `printable`, with those that JSON leaves as they are in a form it knows."""
    return printable(LEFT_BY_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def printable_but_colours(text: str) -> str:
    """As `printable`, for text in which the program itself has set colours."""
    return "".join(part if COLOURS.fullmatch(part) else printable(part) for part in COLOURS.split(text))


class PrintableLog:
    """A log that comes in pieces, as text for a terminal: without colours; a return to the line's start ends the line.

    What may go on in the next piece, a character or a sequence, waits for it.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting = ""

    def text(self, piece: bytes, *, last: bool = False) -> str:
        """This piece's text, with what waited for it. Nothing waits after the last one."""
        text = self._waiting + self._decoder.decode(piece, final=last)
        whole = len(text) if last else UNFINISHED.search(text).start()
        text, self._waiting = text[:whole], text[whole:]
        return printable(COLOURS.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


class PrintableStream:
    """Standard output or error, with control characters written out, whoever writes there and whatever.

    Returns to the start of a line pass, which progress bars need. What sets colours or moves the cursor on purpose
    writes `beneath`.
    """

    def __init__(self, stream: TextIO, clean: Callable[[str], str] = printable_in_json) -> None:
        self.beneath, self._clean = stream, clean

    def write(self, text: str) -> int:
        clean = "\r".join(map(self._clean, text.split("\r")))
        try:
            self.beneath.write(clean)
        except UnicodeEncodeError:  # a terminal of few characters
            self.beneath.write(clean.encode(self.beneath.encoding, "replace").decode(self.beneath.encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # a way around
            raise AttributeError(name)
        return getattr(self.beneath, name)


def beneath(stream: TextIO) -> TextIO:
    """The stream itself, for one who sends only what terminals may be sent."""
    return stream.beneath if isinstance(stream, PrintableStream) else stream


def first_line(error: BaseException) -> str:
    """The first line of its message; its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def closest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The most similar of some words, ignoring case and hyphens; a word of which this one is a prefix comes first."""
    wanted, plain = _plain(word), {_plain(one): one for one in words}
    longer = [one for one in plain if len(wanted) > 2 and one.startswith(wanted)]
    match = longer or get_close_matches(wanted, plain, n=1, cutoff=cutoff)
    return plain[match[0]] if match else None


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")
