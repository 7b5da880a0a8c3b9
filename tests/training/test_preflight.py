"""The preflight on a run's tokenizer and template, with functions in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from grpo_dist.config import RunConfig
from grpo_dist.embedded.model import build_untrained
from grpo_dist.plan import plan_run
from grpo_dist.render.files import render_files
from grpo_dist.run.directory import RunDirectory
from grpo_dist.training.common.process import open_run
from grpo_dist.training.rewards import preflight
from grpo_dist.training.stages.preparation import dressed_tokenizer

MINE = """
import contextlib, io, re, time

def target(completions, target, **columns):
    return [float(str(abs(one)) in c[0]["content"]) for c, one in zip(completions, target)]

def slow(completions, answer, **columns):
    time.sleep(0.06 * len(completions))
    return [float(c[0]["content"].endswith(one)) for c, one in zip(completions, answer)]

def runs(completions, answer, **columns):
    paid = []
    for completion, one in zip(completions, answer):
        code = re.search(r"```python\\n(.*?)\\n```", completion[0]["content"], re.DOTALL)
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(Exception):
            exec(code[1] if code else "", {})
        paid.append(float(printed.getvalue().strip() == one))
    return paid

def ends(completions, answer, **columns):
    return [float(c[0]["content"].endswith(f"so: {one}")) for c, one in zip(completions, answer)]
"""

Try = Callable[..., tuple[dict[str, Any], list[Any]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("untrained") / "model"
    build_untrained(path)
    return path


@pytest.fixture
def tried(model, tmp_path) -> Try:
    (tmp_path / "mine.py").write_text(MINE)

    def attempt(function: str, rows: list[dict[str, Any]], **sections: dict[str, Any]):
        rewards = {"functions": f"{tmp_path}/mine.py:{function}", **sections.pop("rewards", {})}
        config = RunConfig.model_validate(
            {
                "model": {"name_or_path": str(model), "dtype": "float32"},
                "data": {"name_or_path": "embedded", "system_prompt": "none"},
                "rewards": rewards,
                "grpo": {"prompts_per_step": 2, "num_generations": 2, "max_steps": 1, "max_completion_length": 16},
                "cluster": {"gpus_per_node": 0},
                **sections,
            }
        )
        directory = RunDirectory(tmp_path / "run")
        directory.create(render_files(config, plan_run(config)))
        run = open_run(directory.path)
        problems = Dataset.from_list([{"prompt": [{"role": "user", "content": f"{row}?"}], **row} for row in rows])
        found = preflight.try_rewards(run, dressed_tokenizer(run), problems)
        return json.loads(directory.rewards_preflight.read_text()), found

    return attempt


def test_another_column_in_a_type_of_its_own_is_tried_and_not_judged(tried):
    rows = [{"target": number, "nums": [1, number]} for number in (-12, 34, 56)]
    report, found = tried("target", rows, evaluation={"enabled": False})
    assert (report["answer_column"], report["problems"]) == ("target", 3)
    assert [one.name for one in found if one.status == "error"] == []
    assert report["cases"]["gold"]["total"] == 1.0
    assert report["cases"]["gold, told otherwise"]["total"] == 0.0


def test_a_slow_function_is_tried_on_fewer_problems_and_progress_is_told(tried, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "BUDGET_SECONDS", 0.8)
    monkeypatch.setattr(preflight, "FORMS", preflight.FORMS[5:7])
    rows = [{"answer": str(number)} for number in range(10, 50)]
    report, found = tried("slow", rows, evaluation={"enabled": False})
    assert 1 <= report["problems"] <= 3
    said = capsys.readouterr().out
    assert f"s per completion, so they are tried on {report['problems']} problems, not 40" in said
    assert "looking for the form they pay, 5 of 5" in said
    assert report["scorer"] is None
    assert [one.name for one in found if one.status == "error"] == []


def test_a_task_whose_completions_are_programs_is_written_as_one(tried):
    report, found = tried("runs", [{"answer": word} for word in ("apple", "3", "plum")])
    assert report["form"] == "a Python program that prints the answer"
    assert (report["cases"]["gold"]["total"], report["cases"]["wrong"]["total"]) == (1.0, 0.0)
    assert "never-varies" not in [one.name for one in found]


def test_a_blind_scorer_stops_unless_it_is_allowed_as_the_hint_says(tried):
    rows = [{"answer": word} for word in ("apple", "pear", "plum")]
    rewards = {"gold_completion": "7 of them, so: {answer}", "allow": ["never-varies"]}
    report, found = tried("ends", rows, rewards=rewards, evaluation={"scorer": "strict_answer"})
    (blind,) = [one for one in found if one.name == "scorer-blind"]
    assert blind.status == "error"
    assert blind.hint.endswith("--set 'rewards.allow=[never-varies, scorer-blind]'")
    assert report["scorer"]["found_right"]["gold"] == {"right": 0, "of": 3}
