"""Pairs of answers whose verdict is known, in the forms that public data sets and models use.

One file for each type in `corpus/`: `{"guess", "truth", "right", "form source"}`. `corpus/residue.json` lists those
judged otherwise, each with the reason; none of them may be a wrong answer that passes for right.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from grpo_dist.rewards.builtin import accuracy, same_answer, strict_answer

CORPUS = Path(__file__).with_name("corpus")
FILES = sorted(CORPUS.glob("*.jsonl"))
PAIRS = [json.loads(line) for file in FILES for line in file.read_text(encoding="utf-8").splitlines()]
RESIDUE = json.loads((CORPUS / "residue.json").read_text(encoding="utf-8"))
NOT_FOUND = {(one["guess"], one["truth"]) for one in RESIDUE}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mpmath") is None, reason="mpmath is not installed")


def verdicts(file: Path) -> list[tuple[dict, bool]]:
    pairs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(pair, same_answer(pair["guess"], pair["truth"])) for pair in pairs]


def test_the_corpus_is_large_and_balanced():
    wrong = sum(not pair["right"] for pair in PAIRS)
    assert len(PAIRS) >= 1500
    assert 0.4 < wrong / len(PAIRS) < 0.6
    assert len({(pair["guess"], pair["truth"]) for pair in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_no_wrong_answer_passes(file):
    assert [pair for pair, same in verdicts(file) if same and not pair["right"]] == []


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_right_answers_pass_but_for_the_residue(file):
    failed = {(pair["guess"], pair["truth"]) for pair, same in verdicts(file) if pair["right"] and not same}
    here = {(pair["guess"], pair["truth"]) for pair, _ in verdicts(file)}
    assert failed == NOT_FOUND & here


def test_the_residue_is_below_one_per_cent_and_has_reasons():
    right = sum(pair["right"] for pair in PAIRS)
    assert len(RESIDUE) <= 0.01 * right
    assert all(one["reason"] for one in RESIDUE)


def test_every_truth_is_its_own_answer():
    assert [truth for truth in {pair["truth"] for pair in PAIRS} if not same_answer(truth, truth)] == []


def test_both_rewards_judge_as_the_comparison_does():
    pairs = [pair for pair in PAIRS[::7] if "</" not in pair["guess"]]
    texts = [f"so<end_working_out><SOLUTION>{pair['guess']}</SOLUTION>" for pair in pairs]
    truths = [pair["truth"] for pair in pairs]
    expected = [same_answer(pair["guess"], pair["truth"]) for pair in pairs]
    assert [paid == 5.0 for paid in strict_answer([], texts, answer=truths)] == expected
    assert [paid == 1.0 for paid in accuracy([], texts, answer=truths)] == expected
