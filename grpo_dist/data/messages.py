"""Prompts as lists of messages, and the system prompt in front of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grpo_dist.data.text import is_missing
from grpo_dist.data.wording import excerpt, listing
from grpo_dist.errors import DataError

Message = dict[str, str]
Messages = list[Message]
Render = Callable[[Messages], str]
"""A chat template at work: messages to the text the model reads, generation prompt included."""

ROLES = ("system", "user", "assistant")
OTHER_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
"""Their name → ours, as ShareGPT and its like have them."""
PROBE_SYSTEM = "system probe 7193"
PROBE_USER = "user probe 4206"


def to_messages(value: Any, where: str) -> Messages | None:
    """A prompt from its column: text becomes one user message, a conversation is kept; None when it says nothing.

    An answer of the assistant at the end is left out (`ends_answered` tells where there is one).

    Raises:
        DataError: neither, or a message that is not text from one of the roles.
    """
    if is_missing(value):
        return None
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
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


def ends_answered(value: Any) -> bool:
    """Whether a conversation, as its column has it, ends with the assistant's answer."""
    last = value[-1] if isinstance(value, list) and value else None
    role = (last.get("role") or last.get("from")) if isinstance(last, dict) else None
    return isinstance(role, str) and OTHER_ROLES.get(role.lower(), role) == "assistant"


def with_system(messages: Messages, system_prompt: str | None) -> Messages:
    """The system prompt in front, unless there is none or the conversation brings its own."""
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


def dresser(system_prompt: str | None, accepts_system: bool) -> Callable[[Messages], Messages]:
    """The function that puts the system prompt into a prompt, in the way the chat template takes it."""
    if accepts_system:
        return lambda messages: with_system(messages, system_prompt)
    return lambda messages: fold_system(with_system(messages, system_prompt))


def template_accepts_system(render: Render) -> bool:
    """Whether a system message reaches the model: some templates raise on it, others leave it out.

    Raises:
        DataError: the template cannot even render one user message.
    """
    user = {"role": "user", "content": PROBE_USER}
    try:
        rendered = render([user])
    except Exception as error:  # Whatever a template raises is jinja's, transformers' or its own.
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
    """`{role, content}` of one message; keys that `datasets` filled with None are left out, others refused."""
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
    """`{from, value}` as `{role, content}`; its other keys (`weight`, …) say nothing about the prompt."""
    if isinstance(item, dict) and {"from", "value"} <= set(item) and item.get("role") is None:
        return {"role": item["from"], "content": item["value"]}
    return item


def _text(content: Any, where: str) -> str:
    """The content of a message: text, or a list of parts that are text.

    Raises:
        DataError: a part is a picture, or whatever else.
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
