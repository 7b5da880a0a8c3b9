"""What the preflight says about rewards, from what they pay."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dist.config import RunConfig
from grpo_dist.config.sections import RewardFunction
from grpo_dist.findings import Finding
from grpo_dist.rewards.builtin import same_answer
from grpo_dist.rewards.load import LoadedReward, load_rewards
from grpo_dist.rewards.preflight.answers import answer_column, other_values, written
from grpo_dist.rewards.preflight.cases import (
    GOLD,
    SAMPLED,
    WRONG,
    Case,
    gold_cases,
    more_wrong,
    spoilt_cases,
    wrong_answers,
)
from grpo_dist.rewards.preflight.checks import findings
from grpo_dist.rewards.preflight.forms import FORMS, Form, prefilled_tag, stated_form, unnamed
from grpo_dist.rewards.preflight.trial import RewardResult, Scored, Trial, undecided

NUMBERS = ("34", "1234", "-6", "0", "7", "12.5")
SOLUTION, THINK = FORMS[0], FORMS[1]

Reward = Callable[..., list[float | None]]


def tried(
    name: str, function: Reward, cases: Sequence[Case], answers: Sequence[str], weight: float = 1.0
) -> RewardResult:
    paid: dict[str, tuple[Any, ...]] = {}
    for case in cases:
        truths = case.answers or [answers[problem] for problem in case.problems]
        completions = [[{"role": "assistant", "content": text}] for text in case.completions]
        ids = [list(range(len(text))) for text in case.completions]
        paid[case.name] = tuple(
            function(prompts=[""] * len(ids), completions=completions, answer=list(truths), completion_ids=ids)
        )
    return RewardResult(name, weight, paid, 0.0)


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
    found: dict[str, list[str]] = {}
    for finding in found_in(functions, form=form, answers=answers, prefilled=prefilled, **others):
        found.setdefault(finding.name, []).append(finding.status)
    return found


def found_in(
    functions: dict[str, Reward],
    *,
    form: Form = SOLUTION,
    answers: Sequence[str] = NUMBERS,
    prefilled: str | None = "<start_working_out>",
    scorer: Reward | None = None,
    threshold: float = 1.0,
    columns: Sequence[str] = (),
    **others: Any,
) -> list[Finding]:
    """As the preflight does it: other wrong answers are tried where the first is paid as gold is."""
    opened = prefilled == form.opening
    cases = gold_cases(form, answers, prefilled=opened)
    cases += spoilt_cases(form, answers, prefilled=opened, repetitions=8)
    samples = others.pop("samples", None)
    if samples:
        cases.append(samples)
    ours = {case.name: case for case in cases}
    trial = Trial(
        functions=pays(functions, cases, answers, columns),
        form=form,
        prefilled=prefilled,
        answers=tuple(answers),
        cases=ours,
        questions=tuple(f"question {place}" for place in range(len(answers))),
        **{"completions_per_step": 64, "samples_per_problem": 0, "samples_cut": 0.0, "lost_tags": (), **others},
    )
    judges = ([one] for one in trial.reading)
    rows = {row for judge in (*judges, trial.judging) for row in undecided(trial.verdicts(judge))}
    if rows:
        ours["more"] = more_wrong(form, answers, sorted(rows), prefilled=opened)
        trial = replace(trial, functions=pays(functions, list(ours.values()), answers, columns))
    return findings(replace(trial, scorer=scorer and scored(scorer, threshold, form, answers, opened)))


def pays(functions: dict[str, Reward], cases: Sequence[Case], answers: Sequence[str], columns: Sequence[str]):
    return tuple(
        replace(tried(name, function, cases, answers), other_columns=tuple(columns))
        for name, function in functions.items()
    )


def scored(scorer: Reward, threshold: float, form: Form, answers: Sequence[str], opened: bool) -> Scored:
    cases = [case for case in gold_cases(form, answers, prefilled=opened) if case.name in (GOLD, WRONG)]
    first = Scored(tried("judge", scorer, cases, answers), threshold, tuple(cases))
    cases.append(more_wrong(form, answers, undecided(first.verdicts()), prefilled=opened))
    return Scored(tried("judge", scorer, cases, answers), threshold, tuple(cases))


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


def test_a_reward_that_wrongly_expects_a_prefilled_tag_is_named():
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
    trial = Trial((RewardResult("mine", 1.0, {}, 0.0, failures),), SOLUTION, None, NUMBERS, 1, 0, 0.0, ())
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
    slow = RewardResult(one.name, 1.0, one.paid, 0.5)
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


def last(text: str) -> int | None:
    numbers = re.findall(r"-?\d+", text)
    return int(numbers[-1]) if numbers else None


def is_prime(number: int | None) -> bool:
    return number is not None and number > 1 and all(number % one for one in range(2, int(number**0.5) + 1))


FRUIT = ("apple", "pear", "plum", "fig")
PRIMES = ("11", "13", "23", "29", "41", "53", "61")
"""2 n + 7 is a prime for several of them."""


def near(text: str, truth: str) -> float:
    found = last(text)
    return -1000.0 if found is None else float(-abs(found - int(truth)))


@pytest.mark.parametrize(
    ("pay", "answers"),
    [
        (lambda text, truth: float(is_prime(last(text))), PRIMES),
        (lambda text, truth: float(is_prime(last(text))) + 0.5 * text.endswith(f">{truth}</SOLUTION>"), PRIMES),
        (lambda text, truth: float((last(text) or 0) > 10), ("11", "12", "17")),
        (lambda text, truth: float((last(text) or 1) % 7 == 0), ("14", "21", "35")),
        (lambda text, truth: float((last(text) or 99) < 10), ("3", "4", "9")),
        (lambda text, truth: float(any(f">{one}<" in text for one in FRUIT)), FRUIT),
        (lambda text, truth: float(is_prime(last(text))) - 5.0, PRIMES),
        (lambda text, truth: float(f">{truth}<" in text) if truth in "11 13" else float(is_prime(last(text))), PRIMES),
        (near, NUMBERS[:4]),
        (lambda text, truth: float(truth in text), ("1", "7", "15", "35", "5")),
    ],
)
def test_several_right_answers_and_partial_credit_are_no_fault(pay, answers):
    found = look(each(pay), answers=answers)
    assert not set(found) & {"gold-like-wrong", "unparsable-gold", "gold-below-wrong", "never-varies", "several-right"}


def test_an_answer_that_is_not_read_is_found_beside_several_right_ones():
    """Half of the truths cannot be read, and any words at all are paid less than a number is."""

    def pay(text, truth):
        number = last(text)
        if number is None:
            return -2.5
        return 0.0 if not truth.isdecimal() else 3.5 if number == int(truth) else -1.5

    answers = ("34", r"\sqrt{2}", "7", r"\sqrt{5}")
    (finding,) = [one for one in found_in(each(pay), answers=answers) if one.name == "unparsable-gold"]
    assert (finding.status, finding.what[:33]) == ("error", "2 of 4 right answers are paid no ")


def test_equal_pay_for_any_known_word_is_only_a_warning():
    def pay(text, truth):
        return float(any(f">{one}<" in text for one in FRUIT)) - 0.1 * (truth == "fig")

    assert look(each(pay), answers=FRUIT)["several-right"] == ["warning"]


def test_a_finding_tells_what_was_compared():
    unread = each(lambda text, truth: float(truth == "34") if ">34<" in text else 0.0)
    (finding,) = [one for one in found_in(unread) if one.name == "unparsable-gold"]
    lines = [line.strip() for line in finding.what.splitlines()[1:]]
    assert lines[0] == "prompt  'question 1'"
    assert lines[1].startswith("gold    '1234', written as 'First this, then that.<end_working_out><SOLUTION>1234<")
    assert lines[1].endswith(": paid 0")
    assert re.fullmatch(r"tried   'First this.*<SOLUTION>-?\d+</SOLUTION>': paid 0", lines[2])


def test_what_other_columns_decide_is_no_error():
    """A target to reach: no completion that is tried is an expression."""
    for pay in (lambda text, truth: 0.0, lambda text, truth: 0.1 * ("<SOLUTION>" in text)):
        found = look(each(pay), columns=("nums",))
        assert {status for statuses in found.values() for status in statuses} == {"warning"}
    assert look(each(lambda text, truth: 0.0))["never-varies"] == ["error"]
    assert look(each(lambda text, truth: 0.0), answer_column="target")["never-varies"] == ["warning"]


def test_style_alone_is_a_warning_that_nothing_is_known_of_answers():
    letters = each(lambda text, truth: float(len(set(text))))
    found = [one for one in found_in(letters, answers=("8", "18", "30", "98")) if one.status == "error"]
    assert found == []
    assert "of right answers nothing can be said" in str(found_in(letters, answers=("8", "18", "30", "98")))
    assert "gold-like-wrong" not in look(letters, answer_column=None)


def test_none_is_not_counted_as_wrong():
    half = each(lambda text, truth: None if len(truth) > 2 else float(f">{truth}<" in text))
    assert look(half)["unjudged"] == ["warning"]
    assert not {"unparsable-gold", "gold-like-wrong"} & set(look(half))
    both = {**half, "more": each(lambda text, truth: 1.0 if f">{truth}<" in text else None)["mine"]}
    assert "unjudged" not in look(both)


def test_what_weighs_nothing_is_not_asked_for_right_answers():
    exact = each(lambda text, truth: float(f">{truth}<" in text))["mine"]
    unread = each(lambda text, truth: float(truth == "34"))["mine"]
    cases = gold_cases(SOLUTION, NUMBERS, prefilled=True)
    functions = (tried("exact", exact, cases, NUMBERS), tried("watched", unread, cases, NUMBERS, weight=0.0))
    trial = Trial(functions, SOLUTION, None, NUMBERS, 1, 0, 0.0, (), cases={case.name: case for case in cases})
    assert [one.name for one in findings(trial)] == []


def test_a_form_that_no_prompt_names_is_told_where_it_is_paid():
    assert look(ours("strict"), unnamed=("<SOLUTION>",))["form-unnamed"] == ["warning"]
    assert look(ours("strict_format"), unnamed=("<SOLUTION>",))["form-unnamed"] == ["warning"]
    letters = each(lambda text, truth: float(len(set(text))))
    for functions in (ours("accuracy"), letters):
        assert "form-unnamed" not in look(functions, unnamed=("<SOLUTION>",))
    assert unnamed(SOLUTION, ["say <SOLUTION>5</SOLUTION>"], "") == ("<start_working_out>", "<end_working_out>")
    assert unnamed(THINK, ["in <answer></answer>"], "{{ '<think></think>' }}") == ()


@pytest.mark.parametrize(
    ("body", "asking", "mark"),
    [
        (r"So \boxed{{answer}}", r"in \boxed{}", r"\boxed"),
        (r"So \boxed{{answer}}", "Box it.", r"\boxed"),
        ("#### {answer}", "after ####", "####"),
        ("```\n{answer}\n```", "Answer in a fenced block.", "```"),
    ],
)
def test_a_mark_is_named_by_itself_or_by_its_word(body, asking, mark):
    assert unnamed(stated_form(body), ["2+2"], "") == (mark,)
    assert unnamed(stated_form(body), ["2+2", asking], "") == ()


def judge(right: Callable[[str, str], float | None]) -> Reward:
    return each(right)["mine"]


EXACT = each(lambda text, truth: float(f">{truth}<" in text))


@pytest.mark.parametrize(
    ("right", "threshold", "status", "said"),
    [
        (lambda text, truth: 0.0, 1.0, ["error"], "finds none of 6 right answers right"),
        (lambda text, truth: None, 1.0, ["error"], "finds none of 6 right answers right"),
        (lambda text, truth: 1.0, 1.0, ["error"], "finds every answer right, wrong ones too"),
        (lambda text, truth: 0.8 if f">{truth}<" in text else 0.2, 1.0, ["error"], "they score 0.8 at least"),
        (lambda text, truth: 0.8 if f">{truth}<" in text else 0.2, 0.8, [], ""),
        (lambda text, truth: float(f">{truth}<" in text and truth.isdecimal()), 1.0, ["warning"], "finds 4 of 6 right"),
        (lambda text, truth: float(f">{truth}<" in text), 1.0, [], ""),
        (lambda text, truth: float(truth in text), 1.0, [], ""),
    ],
)
def test_a_scorer_that_cannot_judge_is_named(right, threshold, status, said):
    found = [one for one in found_in(EXACT, scorer=judge(right), threshold=threshold) if one.name == "scorer-blind"]
    assert [one.status for one in found] == status
    assert all(said in one.what and "evaluation.scorer=FILE.py:FUNCTION" in one.hint for one in found)


def test_an_unreachable_threshold_is_named_with_one_that_works():
    graded = judge(lambda text, truth: (0.7 + 0.01 * len(truth)) if f">{truth}<" in text else 0.2)
    (found,) = [one for one in found_in(EXACT, scorer=graded) if one.name == "scorer-blind"]
    assert found.hint.startswith("--set evaluation.threshold=0.71, or ")


def test_a_scorer_is_not_blamed_if_the_rewards_pay_nothing_either():
    nothing = each(lambda text, truth: 0.1 * ("<SOLUTION>" in text))
    exact = judge(lambda text, truth: float(f">{truth}<" in text))
    found = look(nothing, scorer=exact, columns=("nums",))
    assert found["scorer-disagrees"] == ["warning"]
    blind = judge(lambda text, truth: 0.0)
    assert look(nothing, scorer=blind, columns=("nums",))["scorer-blind"] == ["warning"]
    assert "scorer-blind" not in look({"judge": nothing["mine"]}, scorer=blind, columns=("nums",))


def test_ways_to_cheat_are_told_only_where_right_answers_are_paid():
    assert not {"junk-pays", "hedging-pays"} & set(look(each(lambda text, truth: 0.0), columns=("nums",)))


def test_a_scorer_that_knows_one_answer_of_several_is_told():
    prime = each(lambda text, truth: float(is_prime(last(text))))
    exact = judge(lambda text, truth: float(f">{truth}<" in text))
    assert look(prime, answers=PRIMES, scorer=exact)["scorer-disagrees"] == ["warning"]
    assert "scorer-disagrees" not in look(prime, answers=PRIMES, scorer=prime["mine"])


def test_right_answers_are_written_and_swapped_in_their_own_type():
    assert [written(one) for one in (5, 2.5, True, ["7", "seven"], [], {"ground_truth": ["9"]}, "x")] == [
        *("5", "2.5", "True", "7", "", "9", "x")
    ]
    assert other_values([3, 3, 4], ["13", "13", "15"]) == [4, 4, 3]
    assert other_values(["3", "4"], ["13", "15"]) == ["13", "15"]
    assert other_values([["a"], ["a"]], ["b", "b"]) == [["a"], ["a"]]


@pytest.mark.parametrize(
    ("asked", "there", "column"),
    [
        (["answer"], ["prompt", "answer"], "answer"),
        (["nums", "target"], ["prompt", "nums", "target"], "target"),
        (["ground_truth"], ["prompt", "answer", "ground_truth"], "ground_truth"),
        (["nums", "answer"], ["prompt", "answer", "nums"], "answer"),
        (["tests"], ["prompt", "tests"], "tests"),
        (["solutions"], ["prompt", "answer", "solutions"], "solutions"),
        (["tests"], ["prompt", "tests", "answer"], "answer"),
        ([], ["prompt", "other"], "answer"),
    ],
)
def test_the_column_with_right_answers_is_the_one_that_is_asked_for(asked, there, column):
    namespace: dict[str, Any] = {}
    exec(f"def mine(prompts, completions, {', '.join([*asked, '**kw'])}): return []", namespace)
    assert answer_column([LoadedReward("mine", 1.0, namespace["mine"], {})], there) == column


def test_only_errors_there_are_can_be_allowed():
    stated = {"model": {"name_or_path": "embedded"}, "data": {"name_or_path": "embedded"}}
    with pytest.raises(ValueError, match="literal_error"):
        RunConfig.model_validate({**stated, "rewards": {"allow": ["gold-below"]}})
    with pytest.raises(ValueError, match="does not say where the answer goes"):
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
