"""The documentation as text: its pages, the blocks of code in them, and the commands they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / name / "README.md" for name in ("launch", "benchmarks")),
    ]
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+")
SPAN = re.compile(r"`([^`\n]+)`")
PROGRAM = re.compile(r"(?:\.venv/bin/)?grpo-dist (.+)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A block of code."""

    page: str
    language: str
    """Empty for one that is indented."""
    text: str
    number: int
    """Among those of its language on its page."""

    def __str__(self) -> str:
        return f"{self.page}:{self.language}:{self.number}"


def blocks(language: str) -> list[Block]:
    """All blocks of a language, page by page."""
    return [
        Block(name(page), language, text, number)
        for page in PAGES
        for number, text in enumerate(_texts(page.read_text(encoding="utf-8"), language))
    ]


def _texts(page: str, language: str) -> list[str]:
    fenced = [text for word, text in FENCED.findall(page) if word == language]
    return fenced if language else [*fenced, *INDENTED.findall(prose(page))]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return FENCED.sub("", page)


def spans() -> Iterator[tuple[str, str]]:
    """(page, text) of each code span; what the changelog names may be gone since."""
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        yield from ((name(page), span) for span in SPAN.findall(prose(page.read_text(encoding="utf-8"))))


def commands() -> Iterator[tuple[str, list[str], bool]]:
    """(page, arguments of `grpo-dist`, whether they are complete) for each command line; `…` is left out."""
    for block in (*blocks(""), *blocks("console"), *blocks("sh")):
        for line in re.split(r"\n|; ", block.text):
            if found := PROGRAM.match(line.strip().removeprefix("$ ")):
                yield block.page, _arguments(found[1]), "…" not in found[1]
    for page, span in spans():
        if found := PROGRAM.fullmatch(span):
            yield page, _arguments(found[1]), False


def _arguments(text: str) -> list[str]:
    words = shlex.split(text, comments=True)
    words = words[: words.index(">")] if ">" in words else words
    return [word for word in words if word != "…"]
