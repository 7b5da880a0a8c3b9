"""YAML text → plain data, and where each part of it was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from grpo_dist.config import syntax
from grpo_dist.config.core_schema import SCALARS, TEXT, CoreResolver, construct
from grpo_dist.config.problems import Path, Place, Problem, Unreadable, shortened

MAX_DEPTH = 32
MAX_VALUES = 10_000
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep; is this a configuration?"
UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

TAGS = {
    "mapping": {"tag:yaml.org,2002:map"},
    "sequence": {"tag:yaml.org,2002:seq"},
    "scalar": {TEXT, *SCALARS},
}
"""Kind of node → the tags it may have."""


@dataclass
class Source:
    """What was stated. `problems` were met on the way; the data is what remains without them."""

    data: Any
    places: dict[Path, Place]
    problems: list[Problem] = field(default_factory=list)

    def nearest(self, path: Path) -> tuple[Path, Place]:
        """The longest part of the path that was written, and where."""
        return next((path[:n], self.places[path[:n]]) for n in range(len(path), -1, -1) if path[:n] in self.places)


PlaceOf = Callable[[int, int, str | None], Place]
"""(line from 1, column from 0, scalar text) → Place."""


def read(text: str, place: PlaceOf) -> Source:
    """Data, places and problems of one YAML document.

    Raises:
        Unreadable: it is not YAML, or not one document, or grows beyond all bounds.
    """
    if found := UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise Unreadable(place(line, 0, None), (), f"{character(found.group())}; remove it")
    walk = _Walk(place)
    root = _compose(text, place)
    if root is None:
        return Source(None, {(): place(1, 0, None)})
    data = walk.value(root, (), ())
    return Source(data, walk.places, walk.problems)


def character(text: str) -> str:
    return f"the character U+{ord(text):04X} cannot be part of a configuration"


class _Composer(Reader, Scanner, Parser, Composer, CoreResolver):
    """YAML text → nodes with YAML 1.2's scalars, no deeper than MAX_DEPTH."""

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
            raise syntax.TooDeep(problem=TOO_DEEP, problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(text: str, place: PlaceOf) -> Node | None:
    composer = _Composer(text)
    try:
        return composer.get_single_node()
    except yaml.MarkedYAMLError as broken:
        line, what = syntax.explain(broken)
    except (ValueError, OverflowError):
        # PyYAML passes "\UFFFFFFFF" in double quotes straight to chr().
        line, what = composer.get_mark().line + 1, "an escape like \\U00110000 that is no character; remove it"
    raise Unreadable(place(line, 0, None), (), what)


class _Walk:
    """Nodes → plain data; aliases are written out, within MAX_VALUES."""

    def __init__(self, place: PlaceOf) -> None:
        self.place = place
        self.places: dict[Path, Place] = {}
        self.problems: list[Problem] = []

    def value(self, node: Node, path: Path, outer: tuple[Node, ...]) -> Any:
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

    def _guard(self, node: Node, path: Path, outer: tuple[Node, ...]) -> None:
        what = None
        if any(node is one for one in outer):
            what = "this alias stands inside what it stands for; write the settings out"
        elif len(outer) >= MAX_DEPTH:
            what = TOO_DEEP
        elif len(self.places) >= MAX_VALUES:
            what = f"more than {MAX_VALUES} values with all aliases written out; is this a configuration?"
        if what:
            raise Unreadable(self._place(node), path, what)

    def _items(self, node: MappingNode, path: Path, outer: tuple[Node, ...]) -> Iterator[tuple[str, Any]]:
        lines: dict[str, int] = {}
        for key, value in node.value:
            problem = _key_problem(key, value, flow=bool(node.flow_style))
            if problem is None and key.value in lines:
                first = f", the first time in line {lines[key.value]}" if lines[key.value] != _line(key) else ""
                problem = f"stated twice{first}; remove one"
            if problem:
                self._refuse(key, (*path, *_key_name(key)), problem)
                continue
            lines[key.value] = _line(key)
            value_of_key = self.value(value, (*path, key.value), outer)
            self.places[(*path, key.value)] = self._place(key, self.places[(*path, key.value)].text)
            yield key.value, value_of_key

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        if found := UNPRINTABLE.search(node.value):
            return self._refuse(node, path, f"{character(found.group())}; remove it")
        try:
            return construct(node.tag, node.value)
        except ValueError as wrong:
            return self._refuse(node, path, str(wrong))

    def _refuse(self, node: Node, path: Path, what: str) -> None:
        self.problems.append(Problem(self._place(node), path, what))

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


def _key_name(key: Node) -> Path:
    return (key.value,) if isinstance(key, ScalarNode) else ()


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _tag(node: Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")
