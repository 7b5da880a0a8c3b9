"""Small pieces of messages: plurals, sizes, suggestions, and the first line of an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


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


def printable(text: str) -> str:
    """The text with control characters, such as those that begin an escape sequence of a terminal, written out."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


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
