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
PROBE_SYSTEM = "system probe 7193"
PROBE_USER = "user probe 4206"


def to_messages(value: Any, where: str) -> Messages | None:
    """A prompt from its column: text becomes one user message, a conversation is kept; None when it says nothing.

    Raises:
        DataError: neither, or a conversation that does not end with the user.
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
    spoken = [message for message in messages if message["role"] != "system"]
    if not spoken or all(is_missing(message["content"]) for message in spoken):
        return None
    if messages[-1]["role"] != "user":
        raise DataError(
            f"{where}: the last message is from {messages[-1]['role']!r}: {excerpt(messages[-1]['content'])}",
            hint="a prompt ends with the user; leave the answer out of it",
        )
    return messages


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
    if not isinstance(item, dict) or "role" not in item or "content" not in item:
        keys = f"the keys {listing(item)}" if isinstance(item, dict) else excerpt(item)
        raise DataError(
            f"{where}: a message has `role` and `content`, this has {keys}", hint="convert the conversations"
        )
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise DataError(f"{where}: unknown role {role!r} in a message", hint=f"roles are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise DataError(
            f"{where}: the content of a message is not text: {excerpt(content)}", hint="only text is trained on"
        )
    more = [key for key, value in item.items() if key not in ("role", "content") and value not in (None, [], {})]
    if more:
        raise DataError(
            f"{where}: a message has more than `role` and `content`: {listing(more)}",
            hint="remove these keys; tools and names are not trained on",
        )
    return {"role": role, "content": content}
