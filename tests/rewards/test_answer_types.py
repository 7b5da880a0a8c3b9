"""What the comparison of answers promises for any text: a verdict, soon, and the same on both sides."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_dist.rewards.answers.parse import readings
from grpo_dist.rewards.answers.types import (
    Clock,
    Date,
    Expression,
    Gathering,
    InBase,
    Listing,
    Matrix,
    Named,
    Opaque,
    Quantity,
    Ratio,
    Relation,
    Sequence,
    Words,
)
from grpo_dist.rewards.builtin import same_answer, strict_answer
from grpo_dist.rewards.quantity import parse_unit

PIECES = st.sampled_from(
    [
        *"0123456789,.;:+-/%$€^_{}()[]|=<>! \n\\xyneiAB'&*°²½√π≤∞±",
        r"\frac",
        r"\sqrt",
        r"\text{",
        r"\{",
        r"\}",
        r"\\",
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
        r"\cup",
        r"\pm",
        r"\log_",
        r"\binom",
        r"\angle ",
        r"\overline{",
        " and ",
        " or ",
        " cm",
        "million",
        "10^",
        "pi",
        "sin",
        "�",
        "\x00",
        r"\int",
        r"\in",
        r"\le",
        r"\infty",
        r"\left(",
    ]
)
TEXTS = st.lists(PIECES, max_size=24).map("".join) | st.text(max_size=60)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("34", Quantity),
        ("$12/hour", Quantity),
        (r"6\pi\text{ cm}", Expression),
        ("(1, 2)", Sequence),
        ("[0, 1)", Sequence),
        (r"\{1, 2\}", Gathering),
        (r"(0,1)\cup(2,3)", Gathering),
        ("1, 2", Listing),
        (r"\pm 2", Listing),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", Matrix),
        ("x < 3", Relation),
        ("x = 3", Named),
        ("3 : 4", Ratio),
        ("1011_2", InBase),
        ("3:30 PM", Clock),
        ("2024-02-29", Date),
        ("an isosceles triangle", Words),
        ("5 or more", Listing),
        ("{1", Opaque),
        ("1 234", Opaque),
    ],
)
def test_the_type_of_an_answer(text, kind):
    assert isinstance(readings(text)[0], kind)


@settings(deadline=None, max_examples=300)
@given(TEXTS, TEXTS)
def test_any_two_texts_have_a_verdict(guess, truth):
    assert same_answer(guess, truth) in (True, False)
    assert same_answer(guess, guess) is bool(readings(guess))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-99, 99), min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_lists_and_sets_have_no_order_and_points_have_one(numbers, chance):
    shuffled = list(numbers)
    chance.shuffle(shuffled)
    given_, right = (", ".join(map(str, one)) for one in (shuffled, numbers))
    assert same_answer(given_, right)
    assert same_answer(f"\\{{{given_}\\}}", f"\\{{{right}\\}}")
    assert same_answer(f"({given_})", f"({right})") is (shuffled == numbers)
    assert not same_answer(f"({given_})", f"\\{{{right}\\}}")


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10**6), st.integers(2, 9), st.integers(60, 500))
def test_tiny_numbers_differ_when_their_exponents_do(above, base, exponent):
    tiny = f"\\frac{{{above}}}{{{base}^{{{exponent}}}}}"
    assert same_answer(f"{above} \\cdot {base}^{{-{exponent}}}", tiny)
    assert not same_answer(f"\\frac{{{above}}}{{{base}^{{{exponent + 1}}}}}", tiny)
    assert not same_answer(f"\\frac{{{above + 1}}}{{{base}^{{{exponent}}}}}", tiny)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("km/h", "hour^-1 km"),
        ("kilometers per hour", "hour^-1 km"),
        ("kph", "hour^-1 km"),
        ("m s^{-2}", "m second^-2"),
        ("meters per second squared", "m second^-2"),
        ("square inches", "inch^2"),
        ("sq. ft", "foot^2"),
        ("red apples", "red apple"),
        ("thousand", None),
        ("or more", None),
        ("x", None),
    ],
)
def test_units_have_one_name(text, unit):
    assert parse_unit(text) == unit


@pytest.mark.parametrize(
    "heavy", ["(1+x)^{%d00000}", r"\binom{%d0000000}{5000000}", "9^{9^{9^%d}}", "%d00000000!", "x^{%d99999}-1"]
)
def test_sixteen_heavy_answers_cost_less_than_two_seconds(heavy):
    texts = [f"<SOLUTION>{heavy % (number + 1)}</SOLUTION>" for number in range(16)]
    begun = time.process_time()
    assert set(strict_answer([], texts, answer=["(1+x)^{100001}"] * 16)) == {-2.0}
    assert time.process_time() - begun < 2.0


@pytest.mark.parametrize(
    "unit", ["(", "{", "x+", "x^", "1/", "1,", "a b ", "and ", "a=b,", "5 apples ", "$", r"\text{", "x<"]
)
@pytest.mark.timeout(120)
def test_long_texts_are_decided_in_a_few_seconds(unit):
    text = unit * (3900 // len(unit))
    begun = time.process_time()
    assert not same_answer(text, f"{text} + 1")
    assert time.process_time() - begun < 4.0
