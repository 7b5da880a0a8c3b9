"""Draws the rooms of the code from the layers in setup.cfg: python docs/pictures/architecture.py

Rewrites docs/images/architecture.svg. What stands in a room is the first line of its docstring.
"""

from __future__ import annotations

import ast
from configparser import ConfigParser
from html import escape
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).parent.parent.parent
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

WIDTH, GAP, PAD = 960, 10, 12
LINE, CHARACTER = 17, 6.7
"""Pixels; the second is the mean width of a letter at 13 px, wide fonts included."""

STYLE = """
svg { background: #fff; font: 13px system-ui, sans-serif }
rect { fill: #fff; stroke: #57606a }
.only rect { fill: #ddf4ff; stroke: #0969da }
text { fill: #57606a }
.name { fill: #1f2328; font-weight: 600; font-size: 14px }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117 }
  rect { fill: #161b22; stroke: #8b949e }
  .only rect { fill: #10233c; stroke: #4493f8 }
  text { fill: #9aa4ae }
  .name { fill: #e6edf3 }
}
"""


def svg() -> str:
    """The whole picture: a room may import from those below it, not from those beside or above it."""
    boxes, y = [], GAP
    for rooms in layers():
        row, height = _row(rooms, y)
        boxes += row
        y += height + GAP
    title = "The rooms of the code in their layers: each knows only the rooms below it"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *boxes, "</svg>", ""])


def layers() -> list[list[str]]:
    """Names of rooms and modules, the highest layer first."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["importlinter:contract:layers"]["layers"].split("\n")
    return [[name.strip().removeprefix("grpo_dist.") for name in line.split("|")] for line in lines if line]


def _row(rooms: list[str], y: int) -> tuple[list[str], int]:
    """Boxes side by side, and the height of the tallest, which is the height of all."""
    width = (WIDTH - (len(rooms) + 1) * GAP) / len(rooms)
    texts = [wrap(_purpose(room), int((width - 2 * PAD) / CHARACTER)) for room in rooms]
    height = 2 * PAD + LINE * (1 + max(map(len, texts)))
    lefts = [GAP + column * (width + GAP) for column in range(len(rooms))]
    return [_box(*one, y, width, height) for one in zip(rooms, texts, lefts, strict=True)], height


def _box(room: str, lines: list[str], x: float, y: int, width: float, height: int) -> str:
    words = [_text(room, x + PAD, y + PAD + LINE - 5, ' class="name"')]
    words += [_text(line, x + PAD, y + PAD + LINE - 4 + number * LINE) for number, line in enumerate(lines, start=1)]
    kind = "only" if room == "training" else "room"
    rectangle = f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{height}" rx="8"/>'
    return f'<g class="{kind}">{rectangle}{"".join(words)}</g>'


def _text(line: str, x: float, y: float, attributes: str = "") -> str:
    return f'<text{attributes} x="{x:g}" y="{y:g}">{escape(line)}</text>'


def _purpose(room: str) -> str:
    """The first line of the docstring; read, not imported."""
    path = ROOT / "grpo_dist" / room
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").splitlines()[0].replace("`", "")


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
