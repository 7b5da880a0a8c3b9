from __future__ import annotations

import json

from grpo_dist.evaluation.comparison import Answered, ComparedProblem, Paired, compare, compare_all

PAIRED = Paired(0.9, tuple(range(6)))
PROBLEMS = [ComparedProblem(f"{i}+{i}=", str(2 * i)) for i in range(6)]


def answered(pattern: str, k: int = 4) -> list[Answered]:
    """x: wrong, digits: greedily right, and so many samples."""
    return [Answered(c, c != "x", 10, False, int(c) if c != "x" and k else 0, k) for c in pattern]


def test_every_model_is_held_against_the_first_as_in_the_report():
    answers = {"a": answered("xx1234"), "b": answered("4x1x34"), "c": answered("444444")}
    found = compare_all(PROBLEMS, answers, PAIRED)
    assert [model["name"] for model in found["models"]] == ["a", "b", "c"]
    assert [(model["gained"], model["lost"]) for model in found["models"]] == [(None, None), (1, 1), (2, 0)]
    for model in found["models"][1:]:
        pair = compare(PROBLEMS, answers["a"], answers[model["name"]], PAIRED)
        assert model["difference"] == pair["differences"]
        assert {key: model[key] for key in pair["trained"]} == pair["trained"]
    assert found["models"][1]["difference"]["mean_at_k"]["estimate"] == (4 - 2) / 24
    assert found["per_problem"][3]["answers"]["b"] == {
        "greedy_correct": False,
        "greedy_score": None,
        "samples_correct": 0,
        "greedy": "x",
    }
    json.dumps(found, allow_nan=False)


def test_without_samples_only_greedy_answers_are_compared():
    found = compare_all(PROBLEMS, {"a": answered("xx1111", 0), "b": answered("111111", 0)}, PAIRED)
    assert (found["k"], found["models"][1]["difference"]["mean_at_k"]) == (0, None)
