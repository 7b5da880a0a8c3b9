"""Forms for tasks whose completions are run or parsed, tried after those that give an answer."""

from __future__ import annotations

from grpo_dist.rewards.preflight.forms import ANSWER, WORKING, Form

PROGRAMS = (
    Form("fenced Python", "", f"{WORKING}\n```python\n{ANSWER}\n```"),
    Form("a Python program that prints the answer", "", f'{WORKING}\n```python\nprint("""{ANSWER}""")\n```'),
    Form("fenced JSON", "", f"{WORKING}\n```json\n{ANSWER}\n```"),
)
