"""Draws the decision of `grpo-dist advise` from its table: python docs/pictures/advise.py

Rewrites docs/images/advise.svg and the table in docs/advise.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from textwrap import wrap

from grpo_dist.advice.rules import OUTCOMES, START, STEPS

DOCS = Path(__file__).parent.parent
PICTURE, PAGE = DOCS / "images" / "advise.svg", DOCS / "advise.md"
TABLE = re.compile(r"(?<=\| question \| answer \| then \|\n\|---\|---\|---\|\n)(?:\|.*\n)+")

Place = tuple[float, float]
STEP_PLACES: dict[str, Place] = {
    "labels": (0, 2.9),
    "checkable-unlabelled": (1, 0.4),
    "checkable-few": (1, 2),
    "checkable-some": (1, 4.3),
    "reasoning": (2, 4),
    "base": (3, 2),
}
"""Column and row of each step."""
OUTCOME_PLACES: dict[str, tuple[Place, ...]] = {
    "preference": ((2, 0),),
    "rft": ((4, 0.8),),
    "warm-start": ((4, 2),),
    "harder": ((4, 3.2),),
    "sft": ((2, 2.85), (2, 5.2), (3, 4.4), (1, 5.9)),
}
"""An outcome that many steps lead to stands near each of them."""

COLUMN, ROW = 262, 84
WIDTH, HEIGHT, LINE = 176, 62, 16
CHARACTERS = 24
LEFT, TOP = 12, 44

STYLE = """
svg { background: #fff; font: 13px system-ui, sans-serif }
rect { fill: #fff; stroke: #57606a }
.outcome rect { fill: #ddf4ff; stroke: #0969da }
path { fill: none; stroke: #57606a }
text { fill: #1f2328; text-anchor: middle }
.answer { font-weight: 600; paint-order: stroke; stroke: #fff; stroke-width: 6px }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117 }
  rect { fill: #161b22; stroke: #8b949e }
  .outcome rect { fill: #10233c; stroke: #4493f8 }
  path { stroke: #8b949e }
  text { fill: #e6edf3 }
  .answer { stroke: #0d1117 }
}
"""


def svg() -> str:
    """The whole picture."""
    edges, answers = zip(*_edges(), strict=True)
    boxes = [_box(STEPS[name].question, place, "step") for name, place in STEP_PLACES.items()]
    for name, places in OUTCOME_PLACES.items():
        boxes += [_box(OUTCOMES[name].title, place, "outcome") for place in places]
    width, height = 2 * LEFT + 4 * COLUMN + WIDTH, round(TOP + 5.9 * ROW + HEIGHT / 2 + LEFT)
    title = f"From {STEPS[START].question.lower()} to the kind of fine-tuning"
    parts = [f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *edges, *boxes, *answers]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    return "\n".join([head, *parts, "</svg>", ""])


def rows() -> str:
    """The same as the rows of a table; a question that follows is named by its number."""
    numbers = {name: number for number, name in enumerate(STEPS, 1)}
    lines = []
    for name, step in STEPS.items():
        question = f"{numbers[name]}. {step.question}"
        for answer, branch in step.branches.items():
            then = f"question {numbers[branch.to]}" if branch.to in numbers else f"**{OUTCOMES[branch.to].title}**"
            lines.append(f"| {question} | {answer} | {then} |\n")
            question = ""
    return "".join(lines)


def page(text: str) -> str:
    """The documentation's page with the rows of the table in it."""
    return TABLE.sub(rows(), text, count=1)


def _edges() -> Iterator[tuple[str, str]]:
    """(curve, the answer on it); answers with the same end share a curve."""
    for name, step in STEPS.items():
        ends: dict[str, list[str]] = {}
        for answer, branch in step.branches.items():
            ends.setdefault(branch.to, []).append(answer)
        for to, answers in ends.items():
            yield _edge(STEP_PLACES[name], _end(STEP_PLACES[name], to), " or ".join(answers))


def _end(start: Place, to: str) -> Place:
    """Of the places of `to`, the nearest that is further right."""
    places = OUTCOME_PLACES.get(to) or (STEP_PLACES[to],)
    right = [place for place in places if place[0] > start[0]]
    return min(right, key=lambda place: (place[0] - start[0], abs(place[1] - start[1])))


def _edge(start: Place, end: Place, answer: str) -> tuple[str, str]:
    x1, y1 = LEFT + start[0] * COLUMN + WIDTH, TOP + start[1] * ROW
    x2, y2 = LEFT + end[0] * COLUMN, TOP + end[1] * ROW
    gap = COLUMN - WIDTH
    curve = f'<path d="M{x1:g} {y1:g}C{x1 + gap / 2:g} {y1:g} {x1 + gap / 2:g} {y2:g} {x1 + gap:g} {y2:g}H{x2:g}"/>'
    # Above the middle of the bend; curves that leave a box together are apart there.
    return curve, _words(wrap(answer, 12), x1 + gap / 2, (y1 + y2) / 2, ' class="answer"')


def _box(text: str, place: Place, kind: str) -> str:
    x, y = LEFT + place[0] * COLUMN, TOP + place[1] * ROW
    words = _words(wrap(text, CHARACTERS, break_on_hyphens=False), x + WIDTH / 2, y)
    rectangle = f'<rect x="{x:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
    return f'<g class="{kind}">{rectangle}{words}</g>'


def _words(lines: list[str], x: float, y: float, attributes: str = "") -> str:
    """Lines around the middle of a place."""
    first = y - (len(lines) - 1) * LINE / 2 + 4.5
    return "".join(
        f'<text{attributes} x="{x:g}" y="{first + number * LINE:g}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
