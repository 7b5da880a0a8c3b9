"""PyYAML's complaints in the words of someone who writes YAML, not of someone who parses it."""

from __future__ import annotations

import re

import yaml

WORDS = (
    # (part of PyYAML's message, what is wrong; what to type)
    (r"found character '\t'", "a tab where the indentation goes; use spaces"),
    ("cannot start any token", "text cannot start with {character}; put it in quotes"),
    ("mapping values are not allowed", "a `:` where no setting can start; check the indentation, or quote the text"),
    ("could not find expected ':'", "no `:` after the name; write `name: value`"),
    ("<block end>, but found '}'", "a `}}` that closes nothing; remove it"),
    ("<block end>, but found ']'", "a `]` that closes nothing; remove it"),
    ("<block end>, but found ','", "a comma outside of [ ] and {{ }}; put the text in quotes"),
    ("<block end>, but found '<scalar>'", "text after the end of a value; put all of it in quotes"),
    ("expected <block end>", "indented unlike the lines above; settings of one group start in the same column"),
    ("expected ',' or ']'", "the `[` in line {since} is not closed; add `]`, or a comma between its entries"),
    ("expected ',' or '}'", "the `{{` in line {since} is not closed; add `}}`, or a comma between its entries"),
    ("found undefined alias", "an alias (*name) without its anchor (&name); put text that starts with * in quotes"),
    ("found duplicate anchor", "an anchor (&name) that is there twice; rename one"),
    ("scanning an alias", "text cannot start with *; put it in quotes"),
    ("scanning an anchor", "text cannot start with &; put it in quotes"),
    ("scanning a tag", "text cannot start with !; put it in quotes"),
    ("undefined tag handle", "text cannot start with !; put it in quotes"),
    ("found unknown escape character", "an unknown \\ escape; use single quotes, in which \\ is just \\"),
    ("expected escape sequence", "an incomplete \\ escape; use single quotes, in which \\ is just \\"),
    ("quoted scalar", "a quote is opened in line {since} and not closed; add the closing quote"),
    ("sequence entries are not allowed", "a `- ` where no list can start; begin it on a line of its own"),
    ("single document", "a second document starts here (`---`); keep one"),
    ("expected '<document start>'", "text after the end of a value; put all of it in quotes, or check the indentation"),
    ("node content, but found '<stream end>'", "a `[` or `{{` is not closed; add `]` or `}}`"),
    ("node content", "a value is missing here"),
    ("chomping or indentation", "text after `|` or `>`; begin it on the next line, indented"),
)


class TooDeep(yaml.MarkedYAMLError):
    """Nested deeper than any configuration is."""


def explain(broken: yaml.MarkedYAMLError) -> tuple[int, str]:
    """(line from 1, `what is wrong; what to type`) of a syntax error."""
    problem = broken.problem or ""
    # PyYAML finds a missing colon only where the next line begins.
    here = broken.context_mark if broken.context == "while scanning a simple key" else broken.problem_mark
    line = _line(here or broken.context_mark)
    if isinstance(broken, TooDeep):
        return line, problem
    complaint = f"{broken.context} {problem}"
    words = next((words for part, words in WORDS if part in complaint), f"this is not YAML ({_literally(problem)})")
    character = re.search(r"found character (.+?) that", problem)
    return line, words.format(
        character=character[1] if character else "this", since=_line(broken.context_mark or broken.problem_mark)
    )


def _literally(text: str) -> str:
    """The text, safe inside a format string."""
    return text.replace("{", "{{").replace("}", "}}")


def _line(mark: yaml.Mark | None) -> int:
    return mark.line + 1 if mark else 1
