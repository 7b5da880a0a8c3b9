r"""Normalises short mathematical text: no wrappers, spacing commands or other insignificant parts.

`$34.$`, `\boxed{34}`, `\(34\)` and `\text{34}` all become `34`; `√2` becomes `\sqrt 2`, `x²` becomes `x^{2}`.
"""

from __future__ import annotations

import re
import unicodedata

_WRAPPERS = (
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    (r"\boxed{", "}"),
    (r"\fbox{", "}"),
    ("{", "}"),
    ("**", "**"),
    ("`", "`"),
)
_TEXT_COMMANDS = (
    "text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname|emph"
)
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_SEPARATOR = r"(?:\{,\}|,\\!\s*|\\[,;: ]\s*|\\!|~|[\u2009\u202f\u00a0])"
"""Separators used only between thousands; a plain comma may also separate the members of a list."""

_ROOT_OF_NUMBER = re.compile(r"√\s*([0-9]+)")

_ROW = "\ue000"
r"""Temporary placeholder for a row break: `\\\\ ` is one and a space, not a backslash and `\\ `."""

_FORMS = (*range(0x1D400, 0x1D800), *range(0xFE50, 0xFE70), *range(0xFF01, 0xFF5F))
"""Italic, bold and full-width letters, digits and signs, which mean what the plain ones do."""

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")
_CHARACTERS = str.maketrans(
    {
        **{chr(code): unicodedata.normalize("NFKC", chr(code)) for code in _FORMS},
        **dict.fromkeys("−–\u2012\uff0d\ufe63", "-"),
        **dict.fromkeys("×·∙⋅", "*"),
        "√": r"\sqrt ",
        **dict.fromkeys("π𝜋", r"\pi "),
        **dict.fromkeys("≤⩽", r"\le "),
        **dict.fromkeys("≥⩾", r"\ge "),
        **{
            character: f"\\frac{{{above}}}{{{below}}}"
            for character, above, below in ("½12", "⅓13", "⅔23", "¼14", "¾34")
        },
        "∛": r"\sqrt[3]",
        "÷": "/",
        "\u2044": "/",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "∞": r"\infty ",
        "\u222a": r"\cup ",
        "∩": r"\cap ",
        "∈": r"\in ",
        "∅": r"\emptyset ",
        "±": r"\pm ",
        "∓": r"\mp ",
        "∠": r"\angle ",
        "\u211d": r"\mathbb{R}",
        "\u2032": "'",
        "’": "'",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "θ": r"\theta ",
        "\u03b1": r"\alpha ",
        "β": r"\beta ",
        "\u03b3": r"\gamma ",
        "λ": r"\lambda ",
        "φ": r"\phi ",
        "ω": r"\omega ",
        "\u2124": r"\mathbb{Z}",
        "≡": r"\equiv ",
        "⌊": r"\lfloor ",
        "⌋": r"\rfloor ",
        "⌈": r"\lceil ",
        "⌉": r"\rceil ",
        "\u3001": ", ",
        "\u3002": ".",
        "º": "°",
        "\u02da": "°",
        "\u200b": "",
        "\ufeff": "",
    }
)
_SYNONYMS = {
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "lbrace": "{", "rbrace": "}",
    "varnothing": "emptyset", "lvert": "vert", "rvert": "vert", "vert": "vert", "mid": "vert", "ast": "times",
    "cdot": "times", "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom",
    "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "lt": "<", "gt": ">", "land": "text{ and }",
    "lor": "text{ or }", "degree": "°", "degrees": "°", "colon": ":", "lang": "langle", "rang": "rangle",
    "infin": "infty", "iff": "Leftrightarrow", "surd": "sqrt", "smallsetminus": "setminus", "backslash": "setminus",
}  # fmt: skip
_SYMBOLS = {"{": r"\{", "}": r"\}", "<": "<", ">": ">", "°": "°", ":": ":", "vert": "|", "times": "*"}
_COMMAND = re.compile(r"\\([A-Za-z]+)(?![A-Za-z])")
_MODULO = (
    r"(?:\\[pb]?mod(?![A-Za-z])|\\text\{ *mod *\}|(?<![A-Za-z\\{])mod(?![A-Za-z])) *(?:\{ *)?([A-Za-z0-9]+)(?: *\})?"
)
_REPLACEMENTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^\s*=(?!=)", ""),
        (r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}"),
        (r"[₀₁₂₃₄₅₆₇₈₉ₙ]+", lambda found: f"_{{{found[0].translate(_SUBSCRIPTS)}}}"),
        # 1\,234 and 11,\! 111: thousands, if the groups are complete
        (
            rf"(?<![0-9.,!}}])[1-9][0-9]{{0,2}}(?:(?:{_SEPARATOR}|,)[0-9]{{3}})*{_SEPARATOR}[0-9]{{3}}"
            rf"(?:(?:{_SEPARATOR}|,)[0-9]{{3}})*(?![0-9])",
            lambda found: re.sub(rf"{_SEPARATOR}|,", "", found[0]),
        ),
        # 10 000: the international way, in which four digits stay together
        (
            r"(?<![0-9.,/^_}] )(?<![0-9.,/^_}])(?:[1-9][0-9]{1,2}(?: [0-9]{3})+|[1-9](?: [0-9]{3}){2,})(?! ?[0-9/])",
            lambda found: found[0].replace(" ", ""),
        ),
        (r"\{([,:])\}", r"\1"),
        (r"^\s*<([^<>=,]+(?:,[^<>=,]+)+)>\s*$", r"\\langle \1 \\rangle "),
        (r"(?<![\\$])\$(?! )([^$]*[^$\s\\])\$(?![0-9])", r"\1"),  # $1$ and $5$, but not $5 and $6
        (r"^([0-9]+)\s*\\over\s*([0-9]+)$", r"\\frac{\1}{\2}"),
        (r"\{?([^{}]+?)\\choose(?![A-Za-z])([^{}]+)\}?", r"\\binom{\1}{\2}"),
        (rf"\\(?:{_TEXT_COMMANDS})\s*\{{", r"\\text{"),
        (r"\\text\{([^{}]*[^{}\s])\s+(and|or)\s*\}", r"\\text{\1}\\text{ \2 }"),  # hours and
        (r"(?<=[0-9])\s*\^?\s*\{?\\text\{\s*(st|nd|rd|th)\s*\}\}?", r"\1"),
        (r"(?<=[0-9])\^\{(st|nd|rd|th)\}", r"\1"),
        (r"\\text\{\s*[.,]?\s*\}\s*$", ""),
        (r"\\(?:left|right)\s*\.(?![0-9])", ""),
        (r"\\!|\\(?:left|right|displaystyle|textstyle|limits|[bB]igg?[lr]?|rm|bf|it|mathstrut)(?![A-Za-z])", ""),
        (r"\\[,;:> ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})", "°"),
        (r"\^\s*(?:\\degrees?(?![A-Za-z])|°|\{\s*°\s*\})", "°"),
        (r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
        (r",?\s*\(([a-z]\s*\\in\s*\\mathbb\{[A-Z]\})\)\s*$", r", \1"),
        (rf" *(?:\( *{_MODULO} *\)|{_MODULO})", lambda found: f" \\pmod{{{next(filter(None, found.groups()))}}}"),
        (r"\\([$%&#_])", r"\1"),
        (r"<=|=<", r"\\le "),
        (r">=", r"\\ge "),
        (r"!=", r"\\ne "),
        (r"^\s*\\approx(?![A-Za-z])", ""),
        (r"\s+", " "),
    )
)


def clean(text: str) -> str:
    r"""The one form; words stay in `\text{…}`. Quadratic in the length: for answers, not for completions."""
    text = _ROOT_OF_NUMBER.sub(r"\\sqrt{\1}", _unwrapped(text)).translate(_CHARACTERS).replace("\\\\", _ROW)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return _unwrapped(_COMMAND.sub(_canonical, text).replace(_ROW, "\\\\"))


def plain(text: str) -> str:
    r"""`clean`, and what stands in `\text{…}` without it."""
    return without_text(clean(text))


def without_text(text: str) -> str:
    r"""Cleaned text with the contents of every `\text{…}` in its place."""
    return re.sub(r"\s+", " ", _TEXT.sub(r"\1", text)).strip()


def _canonical(command: re.Match[str]) -> str:
    name = _SYNONYMS.get(command[1], command[1])
    return _SYMBOLS.get(name, f"\\{name}")


def _unwrapped(text: str) -> str:
    """Without white space, one final period and everything in `_WRAPPERS` around it."""
    before = None
    while text != before:
        before = text
        text = text.strip()
        if text.endswith("\\") and not text.endswith("\\\\"):
            text = text[:-1]  # a space that has lost its end
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
