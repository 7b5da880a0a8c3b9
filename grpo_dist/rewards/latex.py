r"""Short mathematical text in one plain form: without wrappers, spacing commands and other things that mean nothing.

`$34.$`, `\boxed{34}`, `\(34\)` and `\text{34}` all become `34`.
"""

from __future__ import annotations

import re

_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), (r"\boxed{", "}"), ("{", "}"))
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_REPLACEMENTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{,\}|(?<=[0-9])\\,(?=[0-9])", ","),  # 1{,}234 and 1\,234
        (r"\\!|\\(?:left|right|displaystyle)(?![A-Za-z])", ""),
        (r"\\[,;: ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
        (r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})", "°"),
        (r"\\([$%])", r"\1"),
        ("\u2212", "-"),
        (r"\s+", " "),
    )
)


def plain(text: str) -> str:
    """The plain form. Quadratic in the length: for answers, not for completions."""
    text = _TEXT.sub(r"\1", _unwrapped(text))
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text.strip()


def _unwrapped(text: str) -> str:
    """Without white space, one final period and everything in `_WRAPPERS` around it."""
    before = None
    while text != before:
        before = text
        text = text.strip()
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1]
        for opening, closing in _WRAPPERS:
            if _wraps(opening, closing, text):
                text = text[len(opening) : -len(closing)]
    return text


def _wraps(opening: str, closing: str, text: str) -> bool:
    """Whether both delimiters belong together: `{1}+{2}` and `$1$ or $2$` are not wrapped."""
    if len(text) < len(opening) + len(closing) or not (text.startswith(opening) and text.endswith(closing)):
        return False
    inside = text[len(opening) : -len(closing)]
    if closing == "}":
        return balanced(inside) and not inside.endswith("\\")
    return closing not in inside.replace(r"\$", "") and not inside.endswith("\\")


def balanced(text: str) -> bool:
    r"""Whether every brace has its partner; `\{` and `\}` are no braces."""
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0
