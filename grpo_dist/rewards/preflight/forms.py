"""The forms in which a completion may give its answer: those the preflight writes and `accuracy` reads.

Which of them a set of rewards expects is declared nowhere; it is the one they pay most for. The arguments that TRL
passes to a reward function become plain text here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from grpo_dist.errors import RewardError

WORKING_START = "<start_working_out>"
WORKING_END = "<end_working_out>"
SOLUTION_START = "<SOLUTION>"
SOLUTION_END = "</SOLUTION>"
EOS_TOKEN = "<|endoftext|>"


def completion_text(completion: str | Sequence[dict[str, Any]]) -> str:
    """The text the model wrote: the completion itself, or the content of its first message."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def texts(completions: Sequence[Any]) -> list[str]:
    """`completion_text` of each."""
    return [completion_text(completion) for completion in completions]


def texts_with_truths(completions: Sequence[Any], answer: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Pairs (completion, right answer); numbers in the `answer` column become text by `str`."""
    for text, truth in zip(texts(completions), answer, strict=True):
        if truth is None:
            raise RewardError(
                "a problem has no right answer: its `answer` is null",
                hint="drop such rows from the data set, or point data.columns at the column that has the answers",
            )
        yield text, str(truth)


WORKING = "First this, then that."
"""Short: the completion limit may be only a few tokens."""
ANSWER = "{answer}"

_OPENING = re.compile(r"\s*(<[A-Za-z_][\w-]*>)")


@dataclass(frozen=True)
class Form:
    """A way to write a whole completion."""

    name: str
    opening: str
    """The tag it starts with, which a chat template may have prefilled; "" for none."""
    body: str
    """What follows the opening, with `{answer}` in the place of the answer."""
    mark: str = ""
    """What marks the answer: a key of `extract.FINDERS`; forms may share one."""

    def write(self, answer: str, *, opened: bool) -> str:
        """The completion; `opened` leaves out the opening tag, like a completion of a prefilled prompt."""
        body = self.body.replace(ANSWER, answer)
        return body.lstrip("\n") if opened else self.opening + body

    def tags(self) -> tuple[str, ...]:
        """The tags a completion of this form has, in order."""
        return tuple(re.findall(r"</?[A-Za-z_][\w-]*>", self.opening + self.body))


FORMS = (
    Form("solution tags", WORKING_START, f"{WORKING}{WORKING_END}{SOLUTION_START}{ANSWER}{SOLUTION_END}", "solution"),
    Form("think and answer tags", "<think>", f"\n{WORKING}\n</think>\n<answer>\n{ANSWER}\n</answer>", "answer tags"),
    Form("answer tags", "", f"{WORKING}\n<answer>{ANSWER}</answer>", "answer tags"),
    Form("think tags, then a box", "<think>", f"\n{WORKING}\n</think>\n\nThe answer is \\boxed{{{ANSWER}}}.", "box"),
    Form("a box", "", f"{WORKING}\nThe answer is \\boxed{{{ANSWER}}}.", "box"),
    Form("four hashes", "", f"{WORKING}\n#### {ANSWER}", "hashes"),
    Form("fenced code", "", f"{WORKING}\n```\n{ANSWER}\n```", "fence"),
    Form("plain words", "", f"{WORKING}\nThe answer is {ANSWER}", "words"),
    Form("plain words, in bold", "", f"{WORKING}\n**Answer:** {ANSWER}", "words"),
    Form("the answer alone", "", ANSWER, "alone"),
    Form("a last number", "", f"{WORKING}\nThat makes {ANSWER}", "number"),
)
"""In the order in which `extract.final_answer` searches for their marks."""


def stated_form(gold_completion: str) -> Form:
    """The form of `rewards.gold_completion`."""
    opening = _OPENING.match(gold_completion)
    return Form(
        "rewards.gold_completion",
        opening[1] if opening else "",
        gold_completion[opening.end() :] if opening else gold_completion,
    )


def prefilled_tag(prompt: str) -> str | None:
    """The tag that a rendered prompt ends with, ignoring white space: the model's text continues inside it."""
    found = re.search(r"<[A-Za-z_][\w-]*>$", prompt.rstrip())
    return found[0] if found else None


PROGRAMS = (
    Form("fenced Python", "", f"{WORKING}\n```python\n{ANSWER}\n```"),
    Form("a Python program that prints the answer", "", f'{WORKING}\n```python\nprint("""{ANSWER}""")\n```'),
    Form("fenced JSON", "", f"{WORKING}\n```json\n{ANSWER}\n```"),
)


WORDS = {"```": ("fence", "code"), r"\boxed": ("box",), "####": ("hash",)}
"""Other wordings by which prompts ask for a mark."""

_MARK = re.compile(r"</?[A-Za-z_][\w-]*>|\\boxed|#{4}|`{3}")


def unnamed(form: Form, prompts: Sequence[str], template: str) -> tuple[str, ...]:
    """Marks of the form that no rendered prompt contains.

    Thinking tags are exempt if the chat template contains them: the model was trained on these.
    """
    marks = dict.fromkeys(_MARK.findall(form.opening + form.body))
    said = "\n".join(prompts).lower()
    missing = [mark for mark in marks if not any(name in said for name in (mark.lower(), *WORDS.get(mark, ())))]
    return tuple(mark for mark in missing if not ("think" in mark and mark in template))
