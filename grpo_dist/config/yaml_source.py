"""YAML text → plain data, and where each part of it was written.

PyYAML's syntax errors are reworded for someone who writes YAML, not for someone who parses it.

A problem of a configuration has such a place too; it is formatted here as one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from grpo_dist.config.base import SCALARS, TEXT, CoreResolver, construct
from grpo_dist.errors import ConfigError
from grpo_dist.masking import hidden

DottedPath = tuple[str | int, ...]

SHOWN_CHARACTERS = 60
MOST_PROBLEMS, SHOWN_PROBLEMS = 30, 10
"""Beyond the first number only so many are shown, and how many more there are."""


@dataclass(frozen=True)
class Place:
    """Where a value was set: a line of a file, or an override."""

    label: str
    """`configs/x.yaml:3` or `--set grpo.seed=1`."""
    order: tuple[int, ...]
    """Files before overrides, then by line and column, or by position on the command line."""
    names: DottedPath | None = None
    """The setting named by the label itself, so that it is not repeated."""
    text: str | None = None
    """A scalar as it was written."""


@dataclass(frozen=True)
class ConfigProblem:
    """One line for the user. `what` reads `what is wrong; what to type`."""

    place: Place
    path: DottedPath
    what: str

    def __str__(self) -> str:
        named = not self.path or self.path == self.place.names
        return hidden(visible(": ".join([self.place.label, *([] if named else [dotted(self.path)]), self.what])))


class UnreadableConfig(Exception):
    """A text that cannot be used at all because of one problem."""

    def __init__(self, place: Place, path: DottedPath, what: str) -> None:
        super().__init__(what)
        self.problem = ConfigProblem(place, path, what)


def error(problems: Iterable[ConfigProblem]) -> ConfigError:
    """All problems in the order of their places, one line each, without duplicates."""
    ordered = sorted(problems, key=lambda problem: problem.place.order)
    lines = list(dict.fromkeys(map(str, ordered)))
    if len(lines) > MOST_PROBLEMS:
        lines[SHOWN_PROBLEMS:] = [f"and {len(lines) - SHOWN_PROBLEMS:,} problems more"]
    return ConfigError("\n".join(lines))


def dotted(path: DottedPath) -> str:
    return ".".join(shortened(str(key)) for key in path)


def shown(value: Any) -> str:
    """A value as part of a sentence; the original text of a scalar, the kind of anything else."""
    if isinstance(value, str):
        return f"'{shortened(value)}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a group of settings" if value else "an empty group of settings"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return shortened(str(value))


def shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def visible(text: str) -> str:
    """One line that any terminal can print."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
    line = _line_of(here or broken.context_mark)
    if isinstance(broken, TooDeep):
        return line, problem
    complaint = f"{broken.context} {problem}"
    words = next((words for part, words in WORDS if part in complaint), f"this is not YAML ({_literally(problem)})")
    character = re.search(r"found character (.+?) that", problem)
    return line, words.format(
        character=character[1] if character else "this", since=_line_of(broken.context_mark or broken.problem_mark)
    )


def _literally(text: str) -> str:
    """The text, safe inside a format string."""
    return text.replace("{", "{{").replace("}", "}}")


def _line_of(mark: yaml.Mark | None) -> int:
    return mark.line + 1 if mark else 1


MAX_DEPTH = 32
MAX_VALUES = 10_000
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep; is this a configuration?"
UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

TAGS = {
    "mapping": {"tag:yaml.org,2002:map"},
    "sequence": {"tag:yaml.org,2002:seq"},
    "scalar": {TEXT, *SCALARS},
}
"""Kind of node → its allowed tags."""


@dataclass
class Source:
    """The parsed configuration. `problems` were found while parsing; the data omits the parts they concern."""

    data: Any
    places: dict[DottedPath, Place]
    problems: list[ConfigProblem] = field(default_factory=list)

    def nearest(self, path: DottedPath) -> tuple[DottedPath, Place]:
        """The longest part of the path that was written, and where."""
        return next((path[:n], self.places[path[:n]]) for n in range(len(path), -1, -1) if path[:n] in self.places)


PlaceOf = Callable[[int, int, str | None], Place]
"""(line from 1, column from 0, scalar text) → Place."""


def read(text: str, place: PlaceOf) -> Source:
    """Data, places and problems of one YAML document.

    Raises:
        UnreadableConfig: it is not YAML, is not one document, or expands beyond the limit.
    """
    if found := UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise UnreadableConfig(place(line, 0, None), (), f"{character(found.group())}; remove it")
    walk = _Walk(place)
    root = _compose(text, place)
    if root is None:
        return Source(None, {(): place(1, 0, None)})
    data = walk.value(root, (), ())
    return Source(data, walk.places, walk.problems)


def character(text: str) -> str:
    return f"the character U+{ord(text):04X} cannot be part of a configuration"


class _Composer(Reader, Scanner, Parser, Composer, CoreResolver):
    """YAML text → nodes with YAML 1.2's scalars, nested at most MAX_DEPTH deep."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        CoreResolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooDeep(problem=TOO_DEEP, problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(text: str, place: PlaceOf) -> Node | None:
    composer = _Composer(text)
    try:
        return composer.get_single_node()
    except yaml.MarkedYAMLError as broken:
        line, what = explain(broken)
    except (ValueError, OverflowError):
        # PyYAML passes "\UFFFFFFFF" in double quotes straight to chr().
        line, what = composer.get_mark().line + 1, "an escape like \\U00110000 that is no character; remove it"
    raise UnreadableConfig(place(line, 0, None), (), what)


class _Walk:
    """Nodes → plain data; aliases are expanded, up to MAX_VALUES."""

    def __init__(self, place: PlaceOf) -> None:
        self.place = place
        self.places: dict[DottedPath, Place] = {}
        self.problems: list[ConfigProblem] = []

    def value(self, node: Node, path: DottedPath, outer: tuple[Node, ...]) -> Any:
        """The data of a node; outer are the nodes it is in."""
        self._guard(node, path, outer)
        self.places[path] = self._place(node, node.value if isinstance(node, ScalarNode) else None)
        if node.tag not in TAGS[node.id]:
            return self._refuse(node, path, f"tags such as {shortened(_tag(node))} are not used here; remove it")
        if isinstance(node, MappingNode):
            return dict(self._items(node, path, (*outer, node)))
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, i), (*outer, node)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _guard(self, node: Node, path: DottedPath, outer: tuple[Node, ...]) -> None:
        what = None
        if any(node is one for one in outer):
            what = "this alias is inside what it refers to; write the settings out"
        elif len(outer) >= MAX_DEPTH:
            what = TOO_DEEP
        elif len(self.places) >= MAX_VALUES:
            what = f"more than {MAX_VALUES} values with all aliases written out; is this a configuration?"
        if what:
            raise UnreadableConfig(self._place(node), path, what)

    def _items(self, node: MappingNode, path: DottedPath, outer: tuple[Node, ...]) -> Iterator[tuple[str, Any]]:
        lines: dict[str, int] = {}
        for key, value in node.value:
            problem = _key_problem(key, value, flow=bool(node.flow_style))
            if problem is None and key.value in lines:
                first = f", first in line {lines[key.value]}" if lines[key.value] != _line(key) else ""
                problem = f"set twice{first}; remove one"
            if problem:
                self._refuse(key, (*path, *_key_name(key)), problem)
                continue
            lines[key.value] = _line(key)
            value_of_key = self.value(value, (*path, key.value), outer)
            self.places[(*path, key.value)] = self._place(key, self.places[(*path, key.value)].text)
            yield key.value, value_of_key

    def _scalar(self, node: ScalarNode, path: DottedPath) -> Any:
        if found := UNPRINTABLE.search(node.value):
            return self._refuse(node, path, f"{character(found.group())}; remove it")
        try:
            return construct(node.tag, node.value)
        except ValueError as wrong:
            return self._refuse(node, path, str(wrong))

    def _refuse(self, node: Node, path: DottedPath, what: str) -> None:
        self.problems.append(ConfigProblem(self._place(node), path, what))

    def _place(self, node: Node, text: str | None = None) -> Place:
        return self.place(_line(node), int(node.start_mark.column), text)


def _key_problem(key: Node, value: Node, *, flow: bool) -> str | None:
    if not isinstance(key, ScalarNode):
        return "a list or mapping is used as the name of a setting; write a plain name"
    if key.tag != TEXT:
        name = shortened(key.value)
        return f"the name of a setting is text, not {name or 'nothing'}; put it in quotes: '{name}'"
    if UNPRINTABLE.search(key.value):
        return "its name has a character that cannot be part of a configuration; remove it"
    if key.value == "<<":
        return "merge keys are not read; write the settings out"
    if flow and ":" in key.value and isinstance(value, ScalarNode) and not value.value:
        name, _, rest = key.value.partition(":")
        return f"put a space after the colon: {{{shortened(name)}: {shortened(rest)}}}"
    return None


def _key_name(key: Node) -> DottedPath:
    return (key.value,) if isinstance(key, ScalarNode) else ()


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _tag(node: Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")
