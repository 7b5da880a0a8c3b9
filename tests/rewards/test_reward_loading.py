"""From configured names to callables, and the errors a user meets on the way."""

from __future__ import annotations

import asyncio
import inspect
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest

from grpo_dist.config.sections import RewardFunction
from grpo_dist.errors import RewardError
from grpo_dist.rewards import REWARD_SETS
from grpo_dist.rewards.load import load_rewards
from grpo_dist.rewards.names import check_reward_names

USER_CODE = """
import asyncio
import functools
import numpy

CALLS = []

def length(prompts, completions, scale=1.0, **kwargs):
    return [len(text) * scale for text in completions]

def as_array(prompts, completions, **kwargs):
    return numpy.array([len(text) for text in completions], dtype=numpy.float32)

async def judged(prompts, completions, answer, **kwargs):
    await asyncio.sleep(0)
    return [1.0 / len(text) if text else 1 / 0 for text in completions]

class Judge:
    async def __call__(self, prompts, completions, **kwargs):
        return [0.5] * len(completions)

judge = Judge()
doubled = functools.partial(length, scale=2.0)

def inverse(prompts, completions, **kwargs):
    return [1 / len(text) for text in completions]

def returns(prompts, completions, *, what, **kwargs):
    return [what if text == "bad" else 0.0 for text in completions]

def short(prompts, completions, **kwargs):
    return [0.0 for text in completions if text != "bad"]

def one(prompts, completions, **kwargs):
    return 1.0

def together(prompts, completions, **kwargs):
    return {}[len(completions)] if len(completions) > 1 else [0.0]

def logs(prompts, completions, log_metric, **kwargs):
    log_metric("n", len(completions))
    return [1 / len(text) for text in completions]

def narrow(prompts, completions):
    return [0.0] * len(completions)

table = {"a": 1}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with a user's file, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_rewards.py").write_text(USER_CODE)
    return tmp_path


def load(name: str, **kwargs):
    (reward,) = load_rewards([RewardFunction(name=name, kwargs=kwargs)])
    return reward


def failure(name: str, completions: list, prompts: list | None = None, **columns) -> RewardError:
    """The error of calling `my_rewards.py:name`; what stands in `what` is bound."""
    kwargs = {"what": columns.pop("what")} if "what" in columns else {}
    with pytest.raises(RewardError) as raised:
        load(f"my_rewards.py:{name}", **kwargs)(prompts or [""] * len(completions), completions, **columns)
    return raised.value


def test_a_set_gives_its_members_its_weight_and_the_kwargs_they_take():
    rewards = load_rewards([RewardFunction(name="notebook", weight=0.5, kwargs={"eos_token": "</s>"})])
    assert tuple(reward.name for reward in rewards) == REWARD_SETS["notebook"]
    assert [reward.__name__ for reward in rewards] == [reward.name for reward in rewards]
    assert {reward.weight for reward in rewards} == {0.5}
    assert [dict(reward.kwargs) for reward in rewards] == [{"eos_token": "</s>"}, {}, {"eos_token": "</s>"}, {}]
    text = "x<end_working_out><SOLUTION>34</SOLUTION></s>"
    assert sum(reward([""], [text], answer=["34"])[0] for reward in rewards) == 13.0


@pytest.mark.parametrize("place", ["my_rewards.py", "./my_rewards.py", "my_rewards"])
def test_both_spellings_of_a_users_function(here, place, monkeypatch):
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    reward = load(f"{place}:length", scale=3.0)
    assert reward([""] * 2, ["ab", ""], answer=["", ""], trainer_state=None) == [6.0, 0.0]
    assert (reward.__name__, reward.name, reward.weight) == ("length", f"{place}:length", 1.0)
    assert reward.columns == ()
    sys.modules.pop("my_rewards", None)


def test_two_files_of_one_name_do_not_clash(here):
    (here / "other").mkdir()
    (here / "other" / "my_rewards.py").write_text("def second(prompts, completions, **kwargs):\n    return [2.0]\n")
    first, second = load_rewards(
        [RewardFunction(name="my_rewards.py:length"), RewardFunction(name="other/my_rewards.py:second")]
    )
    assert (first([""], ["abc"]), second([""], ["abc"])) == ([3.0], [2.0])


def test_one_file_is_one_module(here):
    first, second = load_rewards(
        [RewardFunction(name="my_rewards.py:length"), RewardFunction(name=f"{here}/my_rewards.py:inverse")]
    )
    assert first.function.__globals__ is second.function.__globals__


def test_other_callables_and_number_types(here):
    assert load("my_rewards.py:doubled")([""], ["abc"]) == [6.0]
    assert load("my_rewards.py:doubled").__name__ == "doubled"
    values = load("my_rewards.py:as_array")([""] * 2, ["a", "bc"])
    assert values == [1.0, 2.0]
    assert [type(value) for value in values] == [float, float]
    assert load("my_rewards.py:returns", what=True)([""], ["bad"]) == [1.0]
    assert load("my_rewards.py:returns", what=None)([""] * 2, ["bad", ""]) == [None, 0.0]


def test_async_functions_stay_async(here):
    judged, judge, length = (load(f"my_rewards.py:{name}") for name in ("judged", "judge", "length"))
    for reward in (judged, judge):
        assert inspect.iscoroutinefunction(reward.__call__)
        assert not inspect.iscoroutinefunction(length.__call__)
    assert judged.columns == ("answer",)
    assert asyncio.run(judged([""], ["ab"], answer=[""])) == [0.5]
    assert asyncio.run(judge([""] * 2, ["ab", ""])) == [0.5, 0.5]
    with pytest.raises(RewardError, match="completion 2 of 2: ''"):
        asyncio.run(judged([""] * 2, ["ab", ""], answer=["", ""]))


@pytest.mark.heavy
def test_trl_sees_the_name_and_the_kind(here):
    utils = pytest.importorskip("trl.trainer.utils")
    judged, judge, length = (load(f"my_rewards.py:{name}") for name in ("judged", "judge", "length"))
    assert [utils.get_callable_name(reward) for reward in (judged, judge, length)] == ["judged", "judge", "length"]
    assert [utils.is_async_callable(reward) for reward in (judged, judge, length)] == [True, True, False]


def test_needed_columns(here):
    assert load("accuracy").columns == ("answer",)
    assert load("strict_format").columns == ()
    assert load("soft_overlong_punishment", max_completion_length=9, soft_punish_cache=1).columns == ()
    assert load("my_rewards.py:returns", what=1).columns == ()
    assert load("my_rewards.py:returns").columns == ("what",)


def test_an_exception_is_told_with_completion_prompt_step_and_place(here):
    line = next(i for i, text in enumerate(USER_CODE.splitlines(), 1) if "1 / len(text) for" in text)
    prompts = [[{"role": "system", "content": "be brief"}, {"role": "user", "content": f"question {i}"}] for i in "abc"]
    completions = ["x" * 300, "", "y"]
    error = failure("inverse", completions, prompts, trainer_state=SimpleNamespace(global_step=7))
    assert error.message == (
        "reward 'my_rewards.py:inverse' raised ZeroDivisionError: division by zero at step 7\n"
        "  completion 2 of 3: ''\n"
        "  its prompt: 'question b'"
    )
    assert f"{here}/my_rewards.py:{line}" in error.hint
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_long_completions_are_cut_and_kept_on_a_line(here):
    text = "bad\n" + "x" * 300
    error = failure("inverse", [[{"role": "assistant", "content": text}], []], trainer_state=SimpleNamespace())
    assert "completion 2 of 2: []" in error.message
    error = failure("returns", ["ok", "bad"], ["", "p" * 300], what=math.nan)
    assert f"its prompt: '{'p' * 200}' …" in error.message


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (math.nan, "returned nan as a reward, not a finite"),
        (math.inf, "returned inf"),
        (-math.inf, "returned -inf"),
        (1e39, "returned 1e+39"),
        (10**400, "not a number"),
        ("3", "returned '3'"),
        ([1.0, 2.0], "returned list [1.0, 2.0] as a reward, not a number"),
        (1j, "returned complex 1j"),
    ],
)
def test_values_that_are_no_rewards(here, what, told):
    error = failure("returns", ["fine", "bad"], what=what)
    assert told in error.message
    assert "completion 2 of 2: 'bad'" in error.message
    assert "None, not nan" in error.hint


def test_returns_that_are_no_lists(here):
    error = failure("short", ["fine", "bad", "fine"])
    assert "returned 2 rewards for 3 completions" in error.message
    assert "completion 2 of 3: 'bad'" in error.message
    assert "returned float 1.0, not a list of rewards" in failure("one", ["fine"]).message
    assert "each of them alone succeeds" in failure("together", ["a", "b"]).message


def test_finding_the_culprit_logs_nothing(here):
    logged = []
    failure("logs", ["a", ""], log_metric=lambda *args: logged.append(args))
    assert logged == [("n", 2)]


def test_a_missing_column_names_the_columns_there_are():
    with pytest.raises(RewardError, match="missing 1 required keyword-only argument: 'answer'") as raised:
        load("accuracy")([""], ["34"], solution=["34"], trainer_state=None)
    assert "these columns: solution;" in raised.value.hint


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("accurracy", "did you mean 'accuracy'?", "rewards: match_format_exactly"),
        ("xyzzy", "there is no reward 'xyzzy'", "sets: notebook, strict"),
        ("missing.py:f", "there is no file", "relative to the directory"),
        ("no_such_package:f", "there is no module no_such_package", "path/to/file.py:function"),
        ("os.no_such:f", "there is no module os.no_such", "install it"),
        ("my_rewards.py:lenght", "has no 'lenght'", "did you mean 'length'?"),
        ("my_rewards.py:zzz", "has no 'zzz'", "its functions are: length"),
        ("my_rewards.py:table", "is a dict, not a function", "f(prompts"),
        ("my_rewards.py:Judge", "is a class, not a function", "f(prompts"),
        ("my_rewards.py:narrow", "does not take **kwargs", "def narrow(prompts, completions, **kwargs)"),
        ("my_rewards.py:", "names no function", "path/file.py:function"),
        (":length", "names no function", "path/file.py:function"),
        ("broken.py:f", "cannot be imported: NameError: name 'nonsense'", "whole traceback"),
        ("broken:f", "cannot be imported: NameError: name 'nonsense'", "whole traceback"),
        ("leaves.py:f", "cannot be imported: SystemExit", "whole traceback"),
        ("needs.py:f", "cannot be imported: ModuleNotFoundError: No module named 'no_such'", "put no_such.py into"),
        ("needs:f", "cannot be imported: ModuleNotFoundError: No module named 'no_such'", "whole traceback"),
    ],
)
def test_names_that_cannot_be_loaded(here, name, message, hint):
    (here / "broken.py").write_text("nonsense")
    (here / "leaves.py").write_text("raise SystemExit(3)")
    (here / "needs.py").write_text("import no_such")
    with pytest.raises(RewardError) as raised:
        load(name)
    assert message in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("functions", "problem"),
    [
        ([{"name": "strict_answer"}, {"name": "strict"}], "reward 'strict_answer' is listed more than once"),
        ([{"name": "a.py:accuracy"}, {"name": "accuracy"}], "reward 'accuracy' is listed more than once"),
        ([{"name": "strict", "kwargs": {"eos": 1}}], "takes no `eos`; its kwargs are: eos_token, symbolic_timeout_s"),
        ([{"name": "check_numbers", "kwargs": {"x": 1}}], "its kwargs are: none"),
        ([{"name": "accuracy", "kwargs": {"answer": []}}], "takes no `answer`"),
        ([{"name": "soft_overlong_punishment"}], "needs `max_completion_length` among its kwargs"),
        ([{"name": "a.py:f", "kwargs": {"prompts": []}}], "the trainer passes `prompts` itself"),
        ([{"name": "nothing"}], "there is no reward 'nothing'"),
    ],
)
def test_problems_seen_without_importing(functions, problem):
    functions = [RewardFunction(**function) for function in functions]
    assert problem in "\n".join(check_reward_names(functions))
    with pytest.raises(RewardError) as raised:
        load_rewards(functions)
    assert problem in raised.value.message


def test_names_that_are_right_have_no_problems():
    names = ("notebook", "strict", "accuracy", "absent.py:f")
    assert check_reward_names([RewardFunction(name=name) for name in names]) == []


def test_bound_arguments_win_over_columns(here):
    assert load("my_rewards.py:length", scale=2.0)([""], ["abc"], scale=[5.0]) == [6.0]


def test_rewards_import_no_machine_learning():
    program = (
        "import sys, grpo_dist.rewards.load as load\n"
        "heavy = {'torch', 'trl', 'transformers', 'numpy', 'sympy', 'math_verify', 'peft', 'accelerate', 'datasets'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
