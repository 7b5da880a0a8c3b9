"""Problems of reasoning-gym's generators: their settings, seeds and grading, also of hostile answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from grpo_dist.config import generators, load_config
from grpo_dist.data.prepare import Model, prepare
from grpo_dist.data.sources import load_rows
from grpo_dist.errors import ConfigError, DataError, RewardError
from grpo_dist.rewards import reasoning_gym, tasks
from grpo_dist.rewards.load import load_rewards

MIX = "[{name: chain_sum, weight: 3, config: {max_terms: 2}}, {name: coin_flip}]"


@pytest.fixture
def config(tmp_path):
    """A function from the data section, as YAML, to the configuration."""

    def load(data: str, *overrides: str):
        path = tmp_path / "run.yaml"
        path.write_text(f"model: {{name_or_path: embedded}}\ncluster: {{gpus_per_node: 0}}\ndata: {data}\n")
        return load_config(path, overrides)

    return load


def answered(*answers: str) -> list:
    return [[{"role": "assistant", "content": f"so<end_working_out><SOLUTION>{one}</SOLUTION>"}] for one in answers]


def test_a_generator_grades_its_own_problems_unless_told_otherwise(config):
    made = config("{name_or_path: reasoning_gym/maze}")
    assert [one.name for one in made.rewards.functions] == [made.evaluation.scorer.name] == ["reasoning_gym"]
    assert (made.data.split, made.data.eval_split) == ("train", "heldout[:256]")
    own = config("{name_or_path: reasoning_gym/maze, eval_fraction: 0.2}", "evaluation.scorer=accuracy")
    assert own.evaluation.scorer.name == "accuracy" and own.data.eval_split is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{name_or_path: reasoning_gym/mase}", "no generator 'mase'; did you mean maze?"),
        ("{name_or_path: reasoning_gym/maze, generator: {max_grid: 9}}", "data.generator.max_grid: maze has no such"),
        ("{name_or_path: reasoning_gym/maze, generator: {max_dist: far}}", "data.generator.max_dist: must be int"),
        ("{name_or_path: reasoning_gym/composite}", "must list the generators that are mixed"),
        (
            f"{{name_or_path: reasoning_gym/composite, generator: {{datasets: {MIX.replace('_flip', '_flp')}}}}}",
            "data.generator.datasets.1.name: reasoning-gym has no generator 'coin_flp' to mix; did you mean coin_flip?",
        ),
        (
            f"{{name_or_path: reasoning_gym/composite, generator: {{datasets: {MIX.replace('max_terms', 'seed')}}}}}",
            "is set for all of them together: data.generator.seed",
        ),
        ("{name_or_path: openai/gsm8k, generator: {size: 3}}", "is for data.name_or_path: reasoning_gym/NAME"),
        ("{name_or_path: reasoning_gym/maze, like: openai/gsm8k}", "generated data has no like"),
    ],
)
def test_wrong_settings_are_told_with_what_may_be_meant(config, data, said):
    with pytest.raises(ConfigError) as raised:
        config(data)
    assert said in raised.value.message


def test_sources_and_package_agree_on_generators_and_their_settings():
    from reasoning_gym.factory import DATASETS

    assert set(generators.generators()) == set(DATASETS)
    for name, (_, config) in DATASETS.items():
        assert set(generators.fields(name)) == {field.name for field in dataclasses.fields(config)}, name


def test_held_out_problems_come_from_other_seeds(config):
    data = config(f"{{name_or_path: reasoning_gym/composite, generator: {{size: 40, datasets: {MIX}}}}}").data
    train = load_rows(data, data.split)
    assert train[:] == load_rows(data, data.split)[:]
    assert train["task"][:].count("chain_sum") > train["task"][:].count("coin_flip") > 0
    other = data.model_copy(update={"generator": {**data.generator, "seed": 1000}})
    assert train[:] != load_rows(other, "train")[:]
    model = Model(lambda messages: str(messages), lambda prompts: [1] * len(prompts), 1000, 10)
    prepared = prepare(data, model, seed=1, need_answers=False, hold_out=True)
    assert prepared.counts["leaked"] > 0 and prepared.counts["train"] > 20
    assert not set(map(str, prepared.train["prompt"][:])) & set(map(str, prepared.heldout["prompt"][:]))


def test_what_a_generator_refuses_names_its_settings(config):
    data = config("{name_or_path: reasoning_gym/chain_sum, generator: {min_terms: 9, max_terms: 2}}").data
    with pytest.raises(DataError, match="refuses the settings of chain_sum: max_terms must be >= min_terms"):
        load_rows(data, "train")


def test_without_the_package_it_is_told_what_to_install(config, monkeypatch):
    monkeypatch.setattr(generators, "PACKAGE", "reasoning_gym_that_is_not_here")
    data = config("{name_or_path: reasoning_gym/maze}").data
    with pytest.raises(DataError, match="needs reasoning-gym") as raised:
        load_rows(data, "train")
    assert raised.value.hint == "pip install 'grpo-dist[reasoning-gym]'"


SETTINGS = {"string_splitting": "{size: 1, max_initial_machines: 4}", "calendar_arithmetic": "{size: 1, year: 2020}"}
SLOW = ("sokoban", "knight_swap", "futoshiki", "zebra_puzzles", "intermediate_integration", "composite")
"""Tenths of a second for each problem."""


@pytest.mark.parametrize("part", range(2))
def test_generators_pay_their_own_answers_in_full(config, part):
    pairs = []
    for name in [name for name in generators.generators() if name not in SLOW][part::2]:
        data = config(f"{{name_or_path: reasoning_gym/{name}, generator: {SETTINGS.get(name, '{size: 1}')}}}").data
        row = load_rows(data, "train")[0]
        if row["answer"] is not None:
            pairs.append((name, row["entry"], row["answer"]))
    paid = tasks.scores([(entry, answer) for _, entry, answer in pairs])
    assert len(paid) > 40
    # Its own grader gives this one a hundredth for its own answer.
    assert [name for (name, _, _), score in zip(pairs, paid, strict=True) if score < 1] in ([], ["color_cube_rotation"])


def test_partial_credit_is_kept_and_each_task_logged(config):
    data = config("{name_or_path: reasoning_gym/countdown, generator: {size: 2}}").data
    rows, logged = load_rows(data, "train"), {}
    reward = load_rewards(config("{name_or_path: reasoning_gym/countdown}").rewards.functions)[0]
    columns = {name: [rows[0][name]] * 5 for name in ("task", "entry")}
    right = rows[0]["answer"]
    guesses = f"1 + 1</SOLUTION> or <SOLUTION>{right}"
    completions = [*answered(right, "1 + 1", "nonsense (", guesses), [{"role": "assistant", "content": ""}]]
    paid = reward(["?"] * 5, completions, **columns, log_metric=logged.__setitem__)
    assert paid == [1.0, 0.05, 0.01, 0.0, 0.0]
    assert logged == {"tasks/countdown": pytest.approx(1.06 / 5)}
    assert reward.columns == ("task", "entry")


EVALUATED = (
    "countdown",
    "puzzle24",
    "polynomial_multiplication",
    "simple_integration",
    "string_insertion",
    "spiral_matrix",
    "binary_matrix",
    "n_queens",
)
"""Generators whose grading evaluates the answer as Python."""
HOSTILE = (
    "__import__('os').system('touch {file}')",
    "[c for c in ().__class__.__base__.__subclasses__() if c.__init__.__globals__['sys'].exit()]",
    "sympify(\"__import__('os').system('touch {file}')\")",
    "lambdify('x', 'x')(open('{file}', 'w'))",
    "Symbol('x').func.__init__.__globals__['__builtins__']['open']('{file}', 'w')",
    "exit()",
    "9**9**9**9",
    "[0] * 10**12",
    "(" * 3000,
)


def test_answers_written_as_programs_do_nothing_and_earn_nothing(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "TIMEOUT_S", 0.3)
    file = tmp_path / "touched"
    pairs = []
    for name in EVALUATED:
        row = load_rows(config(f"{{name_or_path: reasoning_gym/{name}, generator: {{size: 1}}}}").data, "train")[0]
        hostile = [(row["entry"], text.replace("{file}", str(file))) for text in HOSTILE]
        pairs += [*hostile[EVALUATED.index(name) % 2 :: 2], (row["entry"], row["answer"])]
    paid = tasks.scores(pairs)
    right = [score for (_, answer), score in zip(pairs, paid, strict=True) if not _is_hostile(answer)]
    assert right == [1.0] * len(EVALUATED)
    assert max(score for (_, answer), score in zip(pairs, paid, strict=True) if _is_hostile(answer)) <= 0.05
    assert not file.exists() and not Path("touched").exists()


def _is_hostile(answer: str) -> bool:
    return any(answer.startswith(text.split("{file}")[0]) for text in HOSTILE)


def test_an_entry_of_another_version_is_an_error():
    entry = repr({"task": "no_such", "config": {}, "question": "", "answer": "", "metadata": {}})
    with pytest.raises(RewardError, match="a problem cannot be graded: KeyError: 'no_such'"):
        reasoning_gym([], answered("1"), task=["no_such"], entry=[entry])
