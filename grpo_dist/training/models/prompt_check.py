"""Checks the prompts once, as the model will read them, before training starts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from grpo_dist.data.identity import MARK, PICTURE
from grpo_dist.data.messages import Messages, system_prompt
from grpo_dist.data.text import excerpt
from grpo_dist.errors import DataError
from grpo_dist.findings import Finding, Status, any_error
from grpo_dist.text import plural
from grpo_dist.training.common.backend import is_unsloth
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.load import declared_generation, load_tokenizer
from grpo_dist.training.models.prompts import PromptRenderer, begins_with_bos, end_tokens

PROBE = "probe 4206"
MOST = 0.5
"""A mistake in at least this share of the prompts is an error, below it a warning."""
TAG = re.compile(r"<[^<>\s]{1,40}>|\[[^\[\]\s]{1,20}\]")
OWN_TEMPLATE = (
    "give the question alone, e.g. from another column; to train on these texts as they are, a template that adds "
    "nothing: --set data.chat_template=FILE with {{ messages[-1]['content'] }} in it"
)


@dataclass(frozen=True)
class Looked:
    """What is checked: the prompts, and the model's tokenizer before and after the run sets its template."""

    prompts: Sequence[Messages]
    renderer: PromptRenderer
    own: PreTrainedTokenizerBase
    """As it comes with the model."""
    stated: str | None
    """The system prompt of the configuration."""
    ends: Sequence[int]
    """Ids that end a completion."""
    by_id: bool
    """Whether the backend detects padding by token id, as Unsloth does."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.renderer.tokenizer


def check_prompts(run: Run, renderer: PromptRenderer, problems: Iterable[Dataset | None]) -> list[Finding]:
    """What is wrong with these prompts; empty when nothing is.

    Raises:
        DataError: training on them would be of no use.
    """
    looked = Looked(
        prompts=list(chain.from_iterable(one["prompt"][:] for one in problems if one is not None)),
        renderer=renderer,
        own=load_tokenizer(run),
        stated=system_prompt(run.config.data),
        ends=end_tokens(declared_generation(run), renderer.tokenizer),
        by_id=is_unsloth(run),
    )
    found = list(findings(looked))
    if any_error(found):
        errors = [one for one in found if one.status == "error"]
        raise DataError(
            "\n".join(f"prompts: {one.name}: {one.what}" for one in errors),
            hint="; ".join(one.hint for one in errors if one.hint) or None,
        )
    return found


def findings(looked: Looked) -> Iterator[Finding]:
    """All findings, errors included."""
    for check in (_pictures, _templated, _bos, _system, _turn_end, _pad):
        yield from check(looked)


def as_note(finding: Finding) -> str:
    """One line for the user."""
    return f"{finding.name}: {finding.what}" + (f" → {finding.hint}" if finding.hint else "")


def _pictures(looked: Looked) -> Iterator[Finding]:
    found = [prompt for prompt in looked.prompts if PICTURE.search(_spoken(prompt))]
    if found:
        what = (
            f"{_of(found, looked)} have a place for a picture, {_shown(PICTURE, found[0])}; the model reads text only"
        )
        yield Finding("pictures", _status(found, looked), what, "remove these rows from the data")


def _templated(looked: Looked) -> Iterator[Finding]:
    """Marks of a chat template inside text that is put into one. They are allowed for a template that adds nothing."""
    around = _around(looked.renderer)
    if not "".join(around).replace(looked.tokenizer.bos_token or "", "").strip():
        return
    special = {str(token) for token in looked.tokenizer.added_tokens_decoder.values() if token.special}
    found = [prompt for prompt in looked.prompts if _mark(_said(prompt, looked), special, around[1])]
    if found:
        mark = _mark(_said(found[0], looked), special, around[1])
        text = excerpt(found[0][-1]["content"])
        what = f"{_of(found, looked)} hold marks of a chat template already, {mark!r} in {text}"
        yield Finding("templated-already", _status(found, looked), what, OWN_TEMPLATE)


def _bos(looked: Looked) -> Iterator[Finding]:
    bos, ids = looked.tokenizer.bos_token_id, looked.renderer.ids(looked.prompts[0])
    if bos is None:
        return
    times = next((number for number, one in enumerate(ids) if one != bos), len(ids))
    if times == 0 and begins_with_bos(looked.own):
        yield Finding(
            "bos-missing",
            "warning",
            f"texts of this model begin with {looked.tokenizer.bos_token!r}, the prompts of this chat template do not: "
            f"they begin with {excerpt(looked.tokenizer.decode(ids[:8]))}",
            "begin the template with {{ bos_token }}, or --set data.chat_template=recipe, which does",
        )
    if times > 1:
        yield Finding(
            "bos-twice",
            "warning",
            f"prompts begin with {looked.tokenizer.bos_token!r} {times} times",
            "the template writes it: remove it from the data, or from the template",
        )


def _system(looked: Looked) -> Iterator[Finding]:
    if looked.stated is None:
        return
    own = [prompt for prompt in looked.prompts if not _has(looked.stated, prompt[0]["content"])]
    if own:
        yield Finding(
            "own-system-prompt",
            "warning",
            f"{_of(own, looked)} bring a system message of their own, {excerpt(own[0][0]['content'])}: their model is "
            "never told data.system_prompt, nor of tags it asks for",
            "remove these messages from the data, or say that they count: --set data.system_prompt=none",
        )
    told = next((prompt for prompt in looked.prompts if _has(looked.stated, prompt[0]["content"])), None)
    if told is not None and not _has(looked.stated, looked.renderer.text(told)):
        yield Finding(
            "system-prompt-missing",
            "error",
            f"data.system_prompt is not in what the model reads: {excerpt(looked.renderer.text(told))}",
            "use a template that writes it: --set data.chat_template=recipe",
        )


def _turn_end(looked: Looked) -> Iterator[Finding]:
    token = _turn_end_token(looked)
    if token is None or token in looked.ends:
        return
    written, ends = looked.tokenizer.decode([token]), [looked.tokenizer.decode([one]) for one in looked.ends]
    yield Finding(
        "turn-end",
        "warning",
        f"the chat template ends an answer with {written!r}, which ends no completion; what does: {', '.join(ends)}",
        f"--set data.chat_template=recipe, or make {written!r} the eos_token of tokenizer and generation_config",
    )


def _pad(looked: Looked) -> Iterator[Finding]:
    pad, own = looked.tokenizer.pad_token, looked.own.pad_token
    clashes = looked.tokenizer.pad_token_id in looked.ends or any(pad in _spoken(one) for one in looked.prompts)
    if clashes and looked.by_id:
        yield Finding(
            "pad-token",
            "error",
            f"Unsloth tells padding by its id, and the pad token {pad!r} is part of texts: it ends them, or stands in "
            "a prompt; the tokenizer has no spare token to take instead",
            "--set model.backend=trl",
        )
    elif pad != own:
        said = "the tokenizer has none" if own is None else f"the tokenizer's own, {own!r}, ends texts"
        yield Finding("pad-token", "ok", f"{pad!r} fills up rows; {said}")


def _turn_end_token(looked: Looked) -> int | None:
    """The special token directly after an answer; None if the template writes none there, or accepts no answer."""
    answer = {"role": "assistant", "content": PROBE}
    try:
        text = looked.renderer.answered([{"role": "user", "content": "?"}, answer])
    except Exception:  # A template may raise anything; only prompts are rendered.
        return None
    ids = looked.tokenizer(text.rpartition(PROBE)[2], add_special_tokens=False)["input_ids"]
    special = {number for number, one in looked.tokenizer.added_tokens_decoder.items() if one.special}
    return next((one for one in ids[:2] if one in special), None)


def _around(renderer: PromptRenderer) -> tuple[str, str]:
    """What the template writes before and after a question."""
    before, _, behind = renderer.text([{"role": "user", "content": PROBE}]).partition(PROBE)
    return before, behind


def _mark(text: str, special: set[str], generation_prompt: str) -> str | None:
    """A mark of a template in the text: one that templates use, a special token, or the generation prompt itself."""
    found = next((one[0] for one in MARK.finditer(text) if not PICTURE.fullmatch(one[0])), None)
    found = found or next((tag for tag in TAG.findall(text) if tag in special and not PICTURE.fullmatch(tag)), None)
    ending = generation_prompt.strip()
    return found or (ending if ending and text.rstrip().endswith(ending) else None)


def _said(prompt: Messages, looked: Looked) -> str:
    """The texts of a prompt without the configured system prompt, whose tags are intended."""
    return _spoken(prompt).replace(looked.stated, "") if looked.stated else _spoken(prompt)


def _spoken(prompt: Messages) -> str:
    return "\n".join(message["content"] for message in prompt)


def _has(stated: str, text: str) -> bool:
    """Normalises the white space that a template may change."""
    return " ".join(stated.split()) in " ".join(text.split())


def _of(found: Sequence[Messages], looked: Looked) -> str:
    return f"{plural(len(found), 'prompt')} of {len(looked.prompts):,}"


def _status(found: Sequence[Messages], looked: Looked) -> Status:
    return "error" if len(found) >= MOST * len(looked.prompts) else "warning"


def _shown(mark: re.Pattern[str], prompt: Messages) -> str:
    return repr(mark.search(_spoken(prompt))[0])
