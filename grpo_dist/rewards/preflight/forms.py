r"""The forms in which a completion may give its answer: those the preflight writes and `accuracy` reads.

Which of them a set of rewards expects is declared nowhere; it is the one they pay most for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from grpo_dist.rewards.batch import SOLUTION_END, SOLUTION_START, WORKING_END, WORKING_START

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
