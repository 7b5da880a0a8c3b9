"""Prompts as lists of messages; system prompts and chat templates, by name or from a file."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from grpo_dist.config.sections import RECIPE, TOKENIZER, DataSection
from grpo_dist.data.readers import similar_path
from grpo_dist.data.text import excerpt, is_missing, listing
from grpo_dist.errors import DataError
from grpo_dist.text import closest

Message = dict[str, str]
Messages = list[Message]
Render = Callable[[Messages], str]
"""Renders messages to the text the model reads, generation prompt included."""

ROLES = ("system", "user", "assistant")
OTHER_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
"""ShareGPT-style role name → ours."""
MESSAGES_AS_TEXT = re.compile(r"\s*\[?\s*\{\s*[\"'](?:role|from|content|value)[\"']\s*:\s*[\"']")
PROBE_SYSTEM = "system probe 7193"
PROBE_USER = "user probe 4206"


def to_messages(value: Any, where: str) -> Messages | None:
    """A prompt from its column: text becomes one user message, a conversation is kept; None when it is empty.

    An answer of the assistant at the end is left out (`ends_answered` tells where there is one).

    Raises:
        DataError: it is neither, or a message is not text from one of the roles.
    """
    if is_missing(value):
        return None
    if isinstance(value, str):
        written = messages_in_text(value)
        if written is None and MESSAGES_AS_TEXT.match(value):
            raise DataError(
                f"{where}: this begins like messages in JSON and cannot be read: {excerpt(value)}",
                hint="write it as JSON, or name the column that holds the question: "
                "--set 'data.columns={prompt: COLUMN}'",
            )
        if written is None:
            return [{"role": "user", "content": value}]
        value = written
    if not isinstance(value, list):
        raise DataError(
            f"{where}: a prompt is text or a list of messages, this is {excerpt(value)}",
            hint="name the column that holds the question: --set 'data.columns={prompt: COLUMN}'",
        )
    messages = [_message(item, where) for item in value]
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    spoken = [message for message in messages if message["role"] != "system"]
    if not spoken or all(is_missing(message["content"]) for message in spoken):
        return None
    if messages[-1]["role"] != "user":
        raise DataError(
            f"{where}: the last message is from {messages[-1]['role']!r}: {excerpt(messages[-1]['content'])}",
            hint="a prompt ends with the user; leave out what follows",
        )
    return messages


def messages_in_text(value: Any) -> list[Any] | None:
    """Messages written as text, in JSON or as Python prints them: `[{"role": "user", …}]`; None for anything else."""
    if not isinstance(value, str) or not MESSAGES_AS_TEXT.match(value):
        return None
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            found = read(value)
            return found if isinstance(found, list) else [found]
    return None


def ends_answered(value: Any) -> bool:
    """Whether a conversation, as its column has it, ends with the assistant's answer."""
    value = messages_in_text(value) or value
    last = value[-1] if isinstance(value, list) and value else None
    role = (last.get("role") or last.get("from")) if isinstance(last, dict) else None
    return isinstance(role, str) and OTHER_ROLES.get(role.lower(), role) == "assistant"


def with_system(messages: Messages, system_prompt: str | None) -> Messages:
    """The prompt with the system prompt first, unless there is none or the conversation has its own."""
    if system_prompt is None or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": system_prompt}, *messages]


def fold_system(messages: Messages) -> Messages:
    """The system message's text in front of the first user message, for templates without a system role."""
    if messages[0]["role"] != "system":
        return messages
    system, *rest = messages
    first = next(number for number, message in enumerate(rest) if message["role"] == "user")
    folded = {"role": "user", "content": f"{system['content']}\n\n{rest[first]['content']}"}
    return [*rest[:first], folded, *rest[first + 1 :]]


def system_adder(system_prompt: str | None, accepts_system: bool) -> Callable[[Messages], Messages]:
    """The function that adds the system prompt to a prompt, in the way the chat template supports."""
    if accepts_system:
        return lambda messages: with_system(messages, system_prompt)
    return lambda messages: fold_system(with_system(messages, system_prompt))


def template_accepts_system(render: Render) -> bool:
    """Whether a system message reaches the model: some templates raise on it, others drop it.

    Raises:
        DataError: the template cannot even render one user message.
    """
    user = {"role": "user", "content": PROBE_USER}
    try:
        rendered = render([user])
    except Exception as error:  # A template may raise errors of jinja, of transformers, or its own.
        raise DataError(
            f"data.chat_template: it cannot render a user message: {error}",
            hint="--set data.chat_template=recipe",
        ) from error
    if PROBE_USER not in rendered:
        raise DataError(
            f"data.chat_template: it leaves the user's message out: {excerpt(rendered)}",
            hint="--set data.chat_template=recipe",
        )
    try:
        return PROBE_SYSTEM in render([{"role": "system", "content": PROBE_SYSTEM}, user])
    except Exception:
        return False


def _message(item: Any, where: str) -> Message:
    """`{role, content}` of one message; keys that `datasets` filled with None are dropped, others refused."""
    item = _of_sharegpt(item)
    if not isinstance(item, dict) or "role" not in item or "content" not in item:
        keys = f"the keys {listing(item)}" if isinstance(item, dict) else excerpt(item)
        raise DataError(
            f"{where}: a message has `role` and `content` (or `from` and `value`), this has {keys}",
            hint="convert the conversations, or name another column: --set 'data.columns={prompt: COLUMN}'",
        )
    role, content = OTHER_ROLES.get(str(item["role"]).lower(), item["role"]), item["content"]
    if role not in ROLES:
        raise DataError(f"{where}: unknown role {role!r} in a message", hint=f"roles are {', '.join(ROLES)}")
    more = [key for key, value in item.items() if key not in ("role", "content") and value not in (None, [], {})]
    if more:
        raise DataError(
            f"{where}: a message has more than `role` and `content`: {listing(more)}",
            hint="remove these keys; tools and names are not trained on",
        )
    return {"role": role, "content": _text(content, where)}


def _of_sharegpt(item: Any) -> Any:
    """`{from, value}` as `{role, content}`; its other keys (`weight`, …) do not concern the prompt."""
    if isinstance(item, dict) and {"from", "value"} <= set(item) and item.get("role") is None:
        return {"role": item["from"], "content": item["value"]}
    return item


def _text(content: Any, where: str) -> str:
    """The content of a message: text, or a list of parts that are text.

    Raises:
        DataError: a part is an image or anything else.
    """
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) and content else [content]
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            what = f"holds a part of type {kind!r}" if kind and kind != "text" else f"is not text: {excerpt(content)}"
            raise DataError(
                f"{where}: the content of a message {what}; the model is shown text only",
                hint="remove these rows, or name another column: --set 'data.columns={prompt: COLUMN}'",
            )
    return "".join(part["text"] for part in parts)


NONE = "none"
TEXT_SUFFIXES = (".txt", ".md", ".jinja", ".j2")
DEFAULT_SYSTEM_PROMPT = "DEFAULT_SYSTEM_PROMPT"
BOS = "{{- bos_token -}}\n"


def _packaged(name: str) -> str:
    return resources.files("grpo_dist.data").joinpath("templates", name).read_text(encoding="utf-8")


SYSTEM_PROMPTS = {RECIPE: _packaged("recipe.txt")}
"""Name → text."""
CHAT_TEMPLATES = {RECIPE: _packaged("recipe.jinja")}
"""Name → Jinja source, with `DEFAULT_SYSTEM_PROMPT` in the place of the run's system prompt."""


def system_prompt(section: DataSection) -> str | None:
    """The system prompt that `data.system_prompt` means; None for no system message.

    Raises:
        DataError: it looks like a path, and there is no such file.
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
    """The Jinja source that `data.chat_template` means. The recipe's template has the system prompt as its default.

    Args:
        bos: whether the model's texts begin with a BOS token; if so, the recipe's template writes it.

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
    """A file that exists, or one word that looks like a path; `/no_think` is text, for models that support it."""
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
        preset = closest(name, presets)
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
