"""What the preflight says about rewards, from what they pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dist.config import RunConfig
from grpo_dist.config.rewards import RewardFunction
from grpo_dist.findings import Finding
from grpo_dist.rewards.compare import same_answer
from grpo_dist.rewards.load import load_rewards
from grpo_dist.rewards.preflight.cases import SAMPLED, Case, gold_cases, spoilt_cases, wrong_answers
from grpo_dist.rewards.preflight.checks import Trial, findings
from grpo_dist.rewards.preflight.forms import FORMS, Form, prefilled_tag, stated_form
from grpo_dist.rewards.preflight.tried import Tried

NUMBERS = ("34", "1234", "-6", "0", "7", "12.5")
SOLUTION, THINK = FORMS[0], FORMS[1]

Reward = Callable[..., list[float | None]]


def tried(name: str, function: Reward, cases: Sequence[Case], answers: Sequence[str], weight: float = 1.0) -> Tried:
    paid: dict[str, tuple[Any, ...]] = {}
    for case in cases:
        truths = case.answers or [answers[problem] for problem in case.problems]
        completions = [[{"role": "assistant", "content": text}] for text in case.completions]
        ids = [list(range(len(text))) for text in case.completions]
        paid[case.name] = tuple(
            function(prompts=[""] * len(ids), completions=completions, answer=list(truths), completion_ids=ids)
        )
    return Tried(name, weight, paid, 0.0)


def ours(*names: str) -> dict[str, Reward]:
    return {reward.name: reward for reward in load_rewards([RewardFunction(name=name) for name in names])}


def look(
    functions: dict[str, Reward],
    *,
    form: Form = SOLUTION,
    answers: Sequence[str] = NUMBERS,
    prefilled: str | None = "<start_working_out>",
    **others: Any,
) -> dict[str, list[str]]:
    """Finding → the statuses it came with."""
    opened = prefilled == form.opening
    cases = gold_cases(form, answers, prefilled=opened)
    cases += spoilt_cases(form, answers, prefilled=opened, repetitions=8)
    samples = others.pop("samples", None)
    if samples:
        cases.append(samples)
    trial = Trial(
        functions=tuple(tried(name, function, cases, answers) for name, function in functions.items()),
        form=form,
        prefilled=prefilled,
        answers=tuple(answers),
        **{"completions_per_step": 64, "samples_per_problem": 0, "samples_cut": 0.0, "lost_tags": (), **others},
    )
    found: dict[str, list[str]] = {}
    for finding in findings(trial):
        found.setdefault(finding.name, []).append(finding.status)
    return found


def texts(completions: Sequence[Any]) -> list[str]:
    return [completion[0]["content"] for completion in completions]


def each(pay: Callable[[str, str], float | None]) -> dict[str, Reward]:
    def reward(completions: Any, answer: Any, **_: Any) -> list[float | None]:
        return [pay(text, truth) for text, truth in zip(texts(completions), answer, strict=True)]

    return {"mine": reward}


def test_the_recipes_rewards_are_told_of_their_hole_and_no_more():
    assert look(ours("notebook")) == {"junk-pays": ["warning"]}


def test_strict_rewards_have_nothing_against_them_together():
    assert look(ours("strict")) == {}
    assert look(ours("strict_answer")) == {"junk-pays": ["warning"]}


def test_numbers_alone_cannot_judge_fractions():
    found = look(ours("check_numbers"), answers=("34", r"\frac{1}{2}", r"\sqrt{2}"))
    assert found["unparsable-gold"] == ["error"]
    mostly = look(ours("notebook"), answers=("34", r"\frac{1}{2}", "8", "9"))
    assert mostly["unparsable-gold"] == ["warning"]
    assert look(ours("strict"), answers=("34", r"\frac{1}{2}", r"\sqrt{2}")) == {}


def test_a_reward_that_demands_a_tag_the_template_has_prefilled():
    demands = each(lambda text, truth: float(text.startswith("<start_working_out>")) + float(f">{truth}<" in text))
    assert look(demands)["prefilled-tag"] == ["error"]
    assert "prefilled-tag" not in look(demands, prefilled=None)


def test_a_reward_that_takes_for_prefilled_what_the_template_leaves_to_the_model():
    forbids = each(lambda text, truth: float("<think>" not in text) + float(f"\n{truth}\n" in text))
    assert look(forbids, form=THINK, prefilled=None)["prefilled-tag"] == ["error"]
    assert "prefilled-tag" not in look(forbids, form=THINK, prefilled="<think>")


@pytest.mark.parametrize("prefilled", [None, "<start_working_out>"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_taste_for_length_is_no_demand_for_a_tag(prefilled, sign):
    right_and_length = each(lambda text, truth: float(f">{truth}<" in text) + sign * len(text) / 1000)
    assert "prefilled-tag" not in look(right_and_length, prefilled=prefilled)


def test_a_reward_by_chance_demands_no_tag():
    chance = Random(7)
    assert "prefilled-tag" not in look(each(lambda text, truth: chance.random()))


def test_a_reward_that_always_fails_is_told_of_once():
    failures = tuple(Finding("reward-fails", "error", f"in the case {number}") for number in range(3))
    trial = Trial((Tried("mine", 1.0, {}, 0.0, failures),), SOLUTION, None, NUMBERS, 1, 0, 0.0, ())
    assert [found.what for found in findings(trial)] == ["in the case 0\n  and so in 2 more"]


@pytest.mark.parametrize(
    ("pay", "name", "status"),
    [
        (lambda text, truth: 1.0, "never-varies", "error"),
        (lambda text, truth: None, "never-varies", "error"),
        (lambda text, truth: float(len(text)), "gold-below-wrong", "warning"),
        (lambda text, truth: -float(f">{truth}<" in text), "gold-below-wrong", "error"),
        (lambda text, truth: float("<SOLUTION>" in text), "gold-like-wrong", "warning"),
        (lambda text, truth: float(text.isascii() and truth == "34"), "gold-like-wrong", "error"),
        (lambda text, truth: float(truth in text), "hedging-pays", "warning"),
        (lambda text, truth: 1.0 if f">{truth}<" in text else -1.0 if text else 0.0, "silence-pays", "warning"),
    ],
)
def test_what_is_wrong_with_a_reward_of_ones_own(pay, name, status):
    assert set(look(each(pay))[name]) == {status}


def test_what_weighs_nothing_may_stand_still():
    still = {"still": lambda completions, **_: [0.5] * len(completions)}
    cases = gold_cases(SOLUTION, NUMBERS, prefilled=True)
    one = tried("still", still["still"], cases, NUMBERS, weight=0.0)
    trial = Trial((one,), SOLUTION, None, NUMBERS, 1, 0, 0.0, ())
    assert [(found.name, found.status) for found in findings(trial)][:1] == [("never-varies", "warning")]


def test_slowness_is_told_for_a_whole_step():
    cases = gold_cases(SOLUTION, NUMBERS, prefilled=True)
    one = tried("strict_answer", ours("strict_answer")["strict_answer"], cases, NUMBERS)
    slow = Tried(one.name, 1.0, one.paid, 0.5)
    trial = Trial((slow,), SOLUTION, None, NUMBERS, 64, 0, 0.0, ())
    (found,) = findings(trial)
    assert (found.name, found.status) == ("slow", "warning")
    assert "0.5 s per completion: 32 s for the 64 of a step" in found.what


def test_sampled_groups_that_are_paid_alike_or_cut_off():
    samples = Case(SAMPLED, ("nothing",) * 4 + ("<SOLUTION>34</SOLUTION>",) * 2, (0, 0, 1, 1, 2, 2))
    found = look(ours("strict"), samples=samples, samples_per_problem=2, samples_cut=0.5)
    assert found == {"sampled-alike": ["warning"], "sampled-cut": ["warning"]}


def test_tags_the_tokenizer_swallows():
    assert look(ours("strict"), lost_tags=("<SOLUTION>",)) == {"tags-lost": ["error"]}


def test_what_a_prompt_has_prefilled_and_what_a_stated_form_opens_with():
    assert prefilled_tag("2+2=<think>\n") == "<think>"
    assert prefilled_tag("is 2 < 3 and 4 > 3?") is None
    form = stated_form("<think>so</think>It is {answer}")
    assert form.opening == "<think>"
    assert form.write("5", opened=True) == "so</think>It is 5"
    assert form.write(r"\frac{1}{2}", opened=False) == r"<think>so</think>It is \frac{1}{2}"


@given(st.lists(st.one_of(st.integers().map(str), st.text(min_size=1, max_size=9)), min_size=1, max_size=5))
def test_a_wrong_answer_is_another_one(answers):
    for wrong, right in zip(wrong_answers(answers), answers, strict=True):
        assert wrong != right
        if right.lstrip("-").isdecimal() and right.isascii():
            assert not same_answer(wrong, right)


def test_only_errors_there_are_can_be_allowed():
    stated = {"model": {"name_or_path": "embedded"}, "data": {"name_or_path": "embedded"}}
    with pytest.raises(ValueError, match="literal_error"):
        RunConfig.model_validate({**stated, "rewards": {"allow": ["gold-below"]}})
    with pytest.raises(ValueError, match="says nowhere where the answer stands"):
        RunConfig.model_validate({**stated, "rewards": {"gold_completion": "It is 5"}})


STYLES = {
    "different letters": lambda text, truth: float(len(set(text))),
    "brevity": lambda text, truth: -float(len(text)),
    "words": lambda text, truth: min(len(text.split()), 5) / 5,
    "a checksum": lambda text, truth: float(sum(map(ord, text)) % 7),
    "end of a sentence": lambda text, truth: float(text.rstrip().endswith(".")),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_reward_of_style_alone_stops_no_run(style):
    numbers = tuple(str(factor * (factor + 7)) for factor in range(1, 30))
    for form in (SOLUTION, THINK):
        found = look(each(STYLES[style]), form=form, prefilled=form.opening, answers=numbers)
        assert "error" not in {status for statuses in found.values() for status in statuses}, found


def test_a_form_that_no_case_has_stops_no_run():
    cases = gold_cases(SOLUTION, NUMBERS, prefilled=True)
    never = {"never": lambda completions, **_: [0.0] * len(completions)}
    one = replace(tried("never", never["never"], cases, NUMBERS), asks_for_columns=False)
    [found] = [
        found for found in findings(Trial((one,), SOLUTION, None, NUMBERS, 1, 0, 0.0, ())) if "varies" in found.name
    ]
    assert found.status == "warning"
    left_out = {"none": lambda completions, **_: [None] * len(completions)}
    one = replace(tried("none", left_out["none"], cases, NUMBERS), asks_for_columns=False)
    assert findings(Trial((one,), SOLUTION, None, NUMBERS, 1, 0, 0.0, ()))[0].status == "error"
