"""What data files tell about themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpo_dist.advice.look import EXAMINED, kind_of, look
from grpo_dist.config.sections import DataSection
from grpo_dist.errors import DataError

ESSAY = "The harbour was quiet that morning, and nobody knew yet what the boats would bring home."


@pytest.fixture
def write(tmp_path):
    def write_rows(rows: list[dict], name: str = "data.jsonl") -> DataSection:
        path: Path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return DataSection(name_or_path=str(path))

    return write_rows


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("34", "number"),
        ("$1,234.50$", "number"),
        (r"\boxed{\frac{3}{4}}", "number"),
        (r"\frac{\pi}{2}", "mathematics"),
        ("2x + 1", "mathematics"),
        ("[0, 1)", "mathematics"),
        ("B", "short"),
        ("in 1969", "short"),
        ("New York", "short"),
        (ESSAY, "text"),
        ("x" * 5000, "text"),
    ],
)
def test_how_a_label_can_be_checked(label, kind):
    assert kind_of(label) == kind


def test_numbers_are_checkable_and_worked_out(write):
    seen = look(write([{"question": f"{n}?", "solution": n} for n in range(120)]), 0)
    assert (seen.answer_column, seen.labels, seen.kinds) == ("solution", 120, {"number": 120})
    assert seen.facts() == {"labels": "some", "verifiable": "yes", "reasoning": "yes"}


def test_the_end_of_a_worked_solution_is_found(write):
    rows = [{"question": "?", "answer": f"{ESSAY}\n#### {n}"} for n in range(5)]
    seen = look(write(rows), 0)
    assert (seen.extractor, seen.kinds) == ("gsm8k", {"number": 5})
    assert seen.facts() == {"labels": "few", "verifiable": "yes", "reasoning": "yes"}
    boxed = look(write([{"problem": "?", "solution": f"{ESSAY} \\boxed{{{n}}}"} for n in range(5)]), 0)
    assert (boxed.extractor, boxed.kinds) == ("boxed", {"number": 5})


def test_essays_are_labels_that_no_program_checks(write):
    conversation = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ESSAY}]
    shared = [{"from": "human", "value": "?"}, {"from": "gpt", "value": ESSAY}]
    for rows in ([{"prompt": "?", "completion": ESSAY}], [{"messages": conversation}], [{"conversations": shared}]):
        assert look(write(rows * 100), 0).facts() == {"labels": "some", "verifiable": "no"}


def test_short_answers_leave_open_whether_reasoning_helps(write):
    assert look(write([{"prompt": "?", "label": "yes"}] * 10), 0).facts() == {"labels": "few", "verifiable": "yes"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "?", "chosen": ESSAY, "rejected": "no"},
        {"chosen": [{"role": "user", "content": "?"}], "rejected": [], "messages": [{"role": "user", "content": "?"}]},
        {"prompt": "?", "completion": ESSAY, "label": True},
    ],
    ids=["pairs", "pairs beside a conversation", "thumbs"],
)
def test_judged_answers_are_no_labels(write, row):
    seen = look(write([row] * 3), 0)
    assert (seen.judged, seen.facts()) == (True, {"labels": "none", "verifiable": "no"})


def test_gold_answers_beside_judged_ones_are_labels(write):
    seen = look(write([{"prompt": "?", "chosen": ESSAY, "rejected": "no", "answer": n} for n in range(9)]), 0)
    assert (seen.judged, seen.answer_column, seen.facts()["verifiable"]) == (True, "answer", "yes")


@pytest.mark.parametrize(("classes", "worked_out"), [(2, False), (20, False), (21, True), (400, True)])
def test_classes_are_not_worked_out(write, classes, worked_out):
    """0 and 1 are numbers, and nobody works out a class by arithmetic."""
    seen = look(write([{"text": "?", "label": n % classes} for n in range(400)]), 0)
    assert (seen.are_classes, "reasoning" in seen.facts()) == (not worked_out, worked_out)


def test_prompts_alone_tell_only_that_nothing_is_labelled(write):
    assert look(write([{"prompt": "?"}, {"prompt": "!", "answer": " "}]), 0).facts() == {"labels": "none"}


def test_what_is_half_checkable_is_left_open(write):
    rows = [{"prompt": "?", "answer": ESSAY if n % 2 else str(n)} for n in range(3 * EXAMINED)]
    seen = look(write(rows), 0)
    assert (seen.labels, sum(seen.kinds.values())) == (3 * EXAMINED, EXAMINED)
    assert seen.facts() == {"labels": "some"}


def test_a_column_that_is_not_there_is_told(write):
    section = write([{"prompt": "?", "truth": 1}])
    assert look(section, 0, "truth").labels == 1
    with pytest.raises(DataError, match="no column 'trut'; there is: prompt, truth"):
        look(section, 0, "trut")
