"""Whether prompts say in which form to answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from grpo_dist.rewards.preflight.forms import Form

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
