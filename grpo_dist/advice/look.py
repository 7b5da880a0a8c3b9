"""Examines a data set: whether there are labels, how many, and whether a program could check an answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from grpo_dist.advice.rules import label_answer
from grpo_dist.config.base import EMBEDDED
from grpo_dist.config.sections import DataSection
from grpo_dist.data.columns import USUAL_NAMES
from grpo_dist.data.problems import EXTRACTORS
from grpo_dist.data.readers import from_rows
from grpo_dist.data.sources import load_rows
from grpo_dist.data.text import as_text, is_missing, listing
from grpo_dist.embedded.problems import TRAIN_PROBLEMS, problems
from grpo_dist.errors import DataError
from grpo_dist.rewards.latex import plain
from grpo_dist.rewards.quantity import parse_quantity
from grpo_dist.rewards.symbolic import symbolically_equal

if TYPE_CHECKING:
    from datasets import Dataset

ANSWER_NAMES = ("answer", *USUAL_NAMES["answer"], "completion")
CONVERSATIONS = ("messages", "conversations")
PAIRS, THUMBS = {"chosen", "rejected"}, {"completion", "label"}
"""Columns of TRL's preference data: two answers to a prompt, or one and whether it is good."""
ASSISTANT = ("assistant", "gpt")

EXAMINED = 400
"""Number of labels examined, spread evenly over all of them."""
MOST = 0.9
"""Share of the labels from which a property counts for all."""
CLASSES, REPEATS = 20, 5
"""At most this many different labels, each this often on average, are the classes of a classification."""
SHORT_WORDS, SHORT_CHARS, MATHEMATICAL_CHARS = 5, 40, 200

_COMMAND = re.compile(r"\\[A-Za-z]+")
_MATHEMATICAL = re.compile(r"[0-9\\^_+*/=<>()\[\]{}|-]")
_WORD = re.compile(r"[A-Za-z]{2,}")


@dataclass(frozen=True)
class Seen:
    """A data set, as far as the advice needs it."""

    rows: int
    columns: tuple[str, ...]
    answer_column: str | None
    """Column of the labels; None without any."""
    labels: int
    """Number of rows with a label."""
    different: int
    """Number of different labels among those examined."""
    judged: bool
    """Whether rows hold a chosen and a rejected answer, or one that is marked as good or bad."""
    extractor: str
    """`data.answer_extractor` that finds the final answer in a label; `none` takes it whole."""
    kinds: dict[str, int]
    """Of the labels examined: `number`, `mathematics`, `short` (compared as text), `text`."""

    @property
    def checkable(self) -> float | None:
        """Share of the labels that a program can compare an answer with; None without labels."""
        examined = sum(self.kinds.values())
        return 1 - self.kinds.get("text", 0) / examined if examined else None

    @property
    def are_classes(self) -> bool:
        """Whether the labels look like the few classes of a classification."""
        few = 0 < self.different <= min(CLASSES, sum(self.kinds.values()) / REPEATS)
        return few and "text" not in self.kinds

    def facts(self) -> dict[str, str]:
        """Answers to questions of the rules; what the data does not show is left out."""
        known = {"labels": label_answer(self.labels)}
        if self.checkable is not None and not 1 - MOST < self.checkable < MOST:
            known["verifiable"] = "yes" if self.checkable >= MOST else "no"
        if self.labels == 0 and self.judged:
            known["verifiable"] = "no"
        if self._worked_out() >= MOST:
            known["reasoning"] = "yes"
        return known

    def _worked_out(self) -> float:
        """Share of the labels that require working out: numbers, mathematics, results of a worked solution."""
        examined = sum(self.kinds.values())
        if self.extractor != "none" or not examined:
            return float(self.extractor != "none")
        if self.are_classes:
            return 0.0
        return (self.kinds.get("number", 0) + self.kinds.get("mathematics", 0)) / examined

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "checkable": self.checkable}


def look(section: DataSection, seed: int, answer_column: str | None = None) -> Seen:
    """Look at the rows that the section names.

    Args:
        answer_column: the column of the labels; by default that of the section, else the first usual name present.

    Raises:
        DataError: the rows cannot be loaded, or lack the column named.
    """
    if section.name_or_path == EMBEDDED:
        rows = from_rows(problems(seed, TRAIN_PROBLEMS, 0)[0])
    else:
        rows = load_rows(section, section.split)
    column = answer_column or section.columns.get("answer")
    if column is not None and column not in rows.column_names:
        raise DataError(
            f"{section.name_or_path}: no column {column!r}; there is: {listing(rows.column_names)}",
            hint="name the column with the labels: --answer COLUMN",
        )
    pairs, thumbs = set(rows.column_names) >= PAIRS, _thumbs(rows)
    column = column or _first(rows, (name for name in ANSWER_NAMES if not (thumbs and name in THUMBS)))
    labels = _labels(rows, column)
    if column is None and not pairs:
        column = _first(rows, CONVERSATIONS)
        labels = _last_words(rows[column][:]) if column else []
    extractor = _extractor(labels) if section.answer_extractor == "none" else section.answer_extractor
    finals = [EXTRACTORS[extractor](label) or label for label in spread(labels)]
    return Seen(
        rows=len(rows),
        columns=tuple(rows.column_names),
        answer_column=column if labels else None,
        labels=len(labels),
        different=len(set(finals)),
        judged=pairs or thumbs,
        extractor=extractor,
        kinds=dict(Counter(map(kind_of, finals))),
    )


def kind_of(label: str) -> str:
    """How an answer could be compared with this label: `number`, `mathematics`, `short` or `text`."""
    text = plain(label) if len(label) <= MATHEMATICAL_CHARS else label
    if parse_quantity(text) is not None:
        return "number"
    if _reads_as_mathematics(text) and symbolically_equal(text, text):
        return "mathematics"
    return "short" if len(text) <= SHORT_CHARS and len(text.split()) <= SHORT_WORDS else "text"


def spread(labels: Sequence[str]) -> Sequence[str]:
    """At most EXAMINED of them, evenly spaced."""
    if len(labels) <= EXAMINED:
        return labels
    return [labels[place * len(labels) // EXAMINED] for place in range(EXAMINED)]


def _reads_as_mathematics(text: str) -> bool:
    """math-verify reads words as products of letters, so words do not count as mathematics."""
    outside = _COMMAND.sub(" ", text)
    return len(text) <= MATHEMATICAL_CHARS and bool(_MATHEMATICAL.search(text)) and not _WORD.search(outside)


def _thumbs(rows: Dataset) -> bool:
    return set(rows.column_names) >= THUMBS and getattr(rows.features["label"], "dtype", None) == "bool"


def _first(rows: Dataset, names: Iterable[str]) -> str | None:
    return next((name for name in names if name in rows.column_names), None)


def _labels(rows: Dataset, column: str | None) -> list[str]:
    cells = rows[column][:] if column else []
    if any(isinstance(cell, list | dict) for cell in cells):
        return _last_words(cells)
    return [as_text(cell) for cell in cells if not is_missing(cell)]


def _last_words(conversations: Sequence[Any]) -> list[str]:
    """The last assistant message of each conversation that ends with one, of {role, content} or {from, value}."""
    ends = [turns[-1] for turns in conversations if isinstance(turns, list) and turns and isinstance(turns[-1], dict)]
    said = [(end.get("role", end.get("from")), end.get("content", end.get("value"))) for end in ends]
    return [str(text) for role, text in said if role in ASSISTANT and not is_missing(text)]


def _extractor(labels: Sequence[str]) -> str:
    """The extractor that finds a short answer at the end of nearly every label that contains more than the answer."""
    some = spread(labels)
    for name in ("gsm8k", "boxed"):
        found = sum(_shortens(label, EXTRACTORS[name]) for label in some)
        if some and found >= MOST * len(some):
            return name
    return "none"


def _shortens(label: str, extract: Callable[[str], str | None]) -> bool:
    answer = extract(label)
    return answer is not None and len(answer) < len(label)
