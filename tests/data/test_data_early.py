"""What a configuration's own files lack is told before anything starts, with settings that work as they stand."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_dist.config import load_config
from grpo_dist.data.early import check_early
from grpo_dist.errors import PlanError

ROWS = [{"problem": f"{n} + 1?", "solution": f"It is so. #### {n + 1}", "level": n} for n in range(4)]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "x.yaml").write_text("model: {name_or_path: a/b}\ndata: {name_or_path: mine.jsonl}\n")
    (tmp_path / "r.py").write_text(
        "import json\nLIMIT = 3\ndef brief(prompts, completions, level, answer=None, **kw):\n    raise SystemExit(1)\n"
        "def plain(completions, **kw):\n    pass\n"
    )
    return tmp_path


def check(*overrides: str, elsewhere: bool = False) -> None:
    check_early(load_config("x.yaml", overrides), elsewhere=elsewhere)


def refusal(*overrides: str) -> PlanError:
    with pytest.raises(PlanError) as refused:
        check(*overrides)
    return refused.value


def typed(hint: str | None) -> list[str]:
    """The values after each --set of a hint."""
    words = shlex.split(hint or "")
    assert words[::2] == ["--set"] * (len(words) // 2), hint
    return words[1::2]


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ([], ["data.columns: ", "'prompt', 'answer'", "problem, solution, level"]),
        (["data.columns={prompt: question, answer: label}"], ["'question' (for 'prompt')", "'label' (for 'answer')"]),
        (["data.config=main"], ["has no configurations, 'main' was asked for", "data.columns"]),
        (["data.split=tran"], ["data.split: no split 'tran'; ", "data.columns"]),
        (["data.eval_split=test"], ["data.eval_split: no split 'test'"]),
        (["data.columns={prompt: problem, answer: solution}", "data.answer_extractor=boxed"], ["'boxed' finds no"]),
        (["rewards.functions=[r.py:breif]", "evaluation.enabled=false"], ["has no 'breif'; it has json, LIMIT, brief"]),
        (["evaluation.scorer=r.py:plai", "rewards.functions=[r.py:plain]"], ["evaluation.scorer.name: ", "'plai'"]),
    ],
)
def test_all_that_is_missing_is_told_and_its_hint_works(here, stated, says):
    told = refusal(*stated)
    assert all(part in told.message for part in says), told
    check(*stated, *typed(told.hint))


def test_the_hint_of_an_extractor_takes_the_one_that_fits(here):
    columns = "data.columns={prompt: problem, answer: solution}"
    check(columns)
    assert typed(refusal(columns, "data.answer_extractor=boxed").hint) == ["data.answer_extractor=gsm8k"]


def test_a_reward_that_reads_no_answer_needs_none(here):
    check("rewards.functions=[r.py:plain]", "evaluation.enabled=false", "data.columns={prompt: problem}")
    told = refusal(
        "rewards.functions=[r.py:brief]", "evaluation.enabled=false", "data.columns={prompt: level, level: x}"
    )
    assert "'x' (for 'level')" in told.message


def test_a_column_nobody_can_guess_is_asked_for(here):
    (here / "mine.jsonl").write_text('{"q": "1?", "zz": "1"}\n')
    told = refusal()
    assert "there is: q, zz" in told.message
    assert "--set data.columns.prompt=COLUMN" in told.message
    assert told.hint is None


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_columns_of_other_formats_are_seen(here, name):
    from datasets import Dataset

    rows = Dataset.from_list([{"question": "1?", "extra": {"truth": "1"}} if "parquet" in name else {"question": "1?"}])
    rows.to_parquet(name) if name.endswith("parquet") else rows.to_csv(name, index=False)
    told = refusal(f"data.name_or_path={name}")
    assert "no column 'prompt', 'answer'" in told.message
    if name.endswith("parquet"):
        check(f"data.name_or_path={name}", "data.columns={prompt: question, answer: extra.truth}")


def test_a_path_that_is_not_here_may_be_on_the_nodes(here):
    assert "did you mean" in refusal("data.name_or_path=mines.jsonl").hint
    check("data.name_or_path=mines.jsonl", elsewhere=True)
    assert "neither a path that exists nor a data set id" in refusal("data.name_or_path=a b").message


def test_a_reward_file_that_is_not_python_is_told_with_its_line(here):
    (here / "bad.py").write_text("x = 1\ndef f(:\n")
    told = refusal("rewards.functions=[bad.py:f]", "data.columns={prompt: problem, answer: solution}")
    assert "bad.py:2: not Python" in told.message


def test_nothing_heavy_is_imported(here):
    code = (
        "import sys; from grpo_dist.config import load_config; from grpo_dist.data.early import check_early\n"
        "check_early(load_config('x.yaml', ['data.columns={prompt: problem, answer: solution}']))\n"
        "print(sorted({'datasets', 'torch', 'pyarrow', 'pandas', 'numpy', 'sympy', 'math_verify'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], text=True, capture_output=True).stdout == "[]\n"
