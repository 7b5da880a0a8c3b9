"""What is advised, and why; the picture of it in the documentation."""

from __future__ import annotations

import runpy
from itertools import product
from pathlib import Path

import pytest

from grpo_dist.advice.rules import FEW, MANY, OURS, OUTCOMES, STEPS, Advice, Step, decide, label_answer

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.mark.parametrize(
    ("labels", "verifiable", "reasoning", "base", "advice"),
    [
        (0, "yes", "no", "sometimes", "rft"),
        (0, "no", "yes", "sometimes", "preference"),
        (FEW - 1, "yes", "no", "unknown", "rft"),
        (FEW - 1, "no", "yes", "sometimes", "sft"),
        (FEW, "yes", "yes", "sometimes", "rft"),
        (FEW, "yes", "no", "sometimes", "sft"),
        (FEW, "no", "yes", "sometimes", "sft"),
        (MANY - 1, "yes", "yes", "sometimes", "rft"),
        (MANY, "yes", "yes", "sometimes", "sft"),
        (0, "yes", "no", "never", "warm-start"),
        (FEW, "yes", "yes", "never", "warm-start"),
        (FEW, "yes", "yes", "always", "harder"),
        (FEW, "yes", "no", "never", "sft"),
    ],
)
def test_labels_checks_reasoning_and_the_base_model_decide(labels, verifiable, reasoning, base, advice):
    known = {"labels": label_answer(labels), "verifiable": verifiable, "reasoning": reasoning, "base": base}
    assert decide(known).name == advice


def test_only_what_decides_is_asked():
    assert decide({}).fact == "labels"
    assert decide({"labels": "none"}).fact == "verifiable"
    assert isinstance(decide({"labels": "many"}), Advice)
    assert isinstance(decide({"labels": "none", "verifiable": "no"}), Advice)
    assert decide({"labels": "none", "verifiable": "yes"}).fact == "base"


def test_every_way_ends_and_every_answer_has_its_reason_and_source():
    answers = {step.fact: tuple(step.branches) for step in STEPS.values()}
    reached = set()
    for combination in product(*answers.values()):
        known = dict(zip(answers, combination, strict=True))
        advice = decide(known)
        assert not isinstance(advice, Step)
        assert all(known[reason.fact] == reason.answer and reason.why for reason in advice.reasons)
        assert all("https://" in reason.source or reason.source == OURS for reason in advice.reasons)
        reached.add(advice.name)
    assert reached == set(OUTCOMES)


def test_the_picture_and_the_page_are_those_of_the_table():
    drawn = runpy.run_path(str(DOCS / "pictures" / "advise.py"))
    redraw = "python docs/pictures/advise.py"
    page = (DOCS / "advise.md").read_text(encoding="utf-8")
    assert (DOCS / "images" / "advise.svg").read_text(encoding="utf-8") == drawn["svg"](), redraw
    assert drawn["page"](page) == page, redraw
    assert all(f"**{outcome.title}**" in page for outcome in OUTCOMES.values())
