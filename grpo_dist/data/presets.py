"""System prompts and chat templates, by name or from a file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from grpo_dist.config.data import DataSection
from grpo_dist.data.files import similar_path
from grpo_dist.data.wording import nearest
from grpo_dist.errors import DataError

RECIPE, NONE, TOKENIZER = "recipe", "none", "tokenizer"
TEXT_SUFFIXES = (".txt", ".md", ".jinja", ".j2")
DEFAULT_SYSTEM_PROMPT = "DEFAULT_SYSTEM_PROMPT"
BOS = "{{- bos_token -}}\n"


def _packaged(name: str) -> str:
    return resources.files("grpo_dist.data").joinpath("templates", name).read_text(encoding="utf-8")


SYSTEM_PROMPTS = {RECIPE: _packaged("recipe.txt")}
"""Name → text."""
CHAT_TEMPLATES = {RECIPE: _packaged("recipe.jinja")}
"""Name → Jinja source, with `DEFAULT_SYSTEM_PROMPT` where the system prompt of the run goes."""


def system_prompt(section: DataSection) -> str | None:
    """The system prompt that `data.system_prompt` means; None for no system message.

    Raises:
        DataError: it reads like a path, and there is no such file.
    """
    value = section.system_prompt
    if value is None or value == NONE or not value.strip():
        return None
    if value in SYSTEM_PROMPTS:
        return SYSTEM_PROMPTS[value]
    if not _reads_like_a_path(value):
        return value
    return _read("data.system_prompt", value, list(SYSTEM_PROMPTS)).rstrip("\n") or None


def chat_template(section: DataSection, tokenizer_template: str | None, *, bos: bool = False) -> str:
    """The Jinja source that `data.chat_template` means. The recipe's own carries the system prompt as its default.

    Args:
        bos: whether texts of the model begin with a BOS token; the recipe's template writes it then.

    Raises:
        DataError: the tokenizer has none, there is no such file, or it is not Jinja.
    """
    value = section.chat_template
    if value == TOKENIZER:
        if not tokenizer_template:
            raise DataError(
                "data.chat_template: the tokenizer of this model has no chat template (base models often have none)",
                hint="--set data.chat_template=recipe",
            )
        return tokenizer_template
    if value in CHAT_TEMPLATES:
        # repr() of a string is a Jinja string literal too, line breaks and quotes escaped.
        source = CHAT_TEMPLATES[value].replace(DEFAULT_SYSTEM_PROMPT, repr(system_prompt(section) or ""), 1)
        return BOS + source if bos else source
    source = _read("data.chat_template", value, [*CHAT_TEMPLATES, TOKENIZER])
    _check_syntax(value, source)
    return source


def _reads_like_a_path(text: str) -> bool:
    """A file that exists, or one word that looks like a path; `/no_think` is text, for models that know it."""
    if "\n" in text:
        return False
    path_like = text.startswith(("./", "../", "~/")) or text.count("/") > 1 or text.lower().endswith(TEXT_SUFFIXES)
    return _is_file(text) or (path_like and " " not in text)


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long for a name, a NUL, or an unknown ~user
        return False


def _read(field: str, name: str, presets: list[str]) -> str:
    if not _is_file(name):
        preset = nearest(name, presets)
        similar = preset or similar_path(Path(name))
        raise DataError(
            f"{field}: no file {name!r}, and no preset of that name",
            hint=f"did you mean {similar}?" if similar else f"presets: {', '.join(presets)}; or a path to a file",
        )
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{field}: {name} cannot be read as UTF-8 text: {error}", hint="save it as UTF-8") from error


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, which Transformers adds to Jinja."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _check_syntax(name: str, source: str) -> None:
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols", _Generation])
    try:
        environment.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"data.chat_template: {name}:{error.lineno}: {error.message}",
            hint="it is a Jinja template; correct that line",
        ) from error
