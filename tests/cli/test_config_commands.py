from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from grpo_dist.cli import main
from grpo_dist.config import dump_config, load_config, starts
from grpo_dist.config.starts import ALGORITHMS, TASKS
from grpo_dist.data.early import check_early
from grpo_dist.launch.checks import check_reward_settings
from grpo_dist.plan import plan_run

GOOD = "model: {name_or_path: embedded}\ndata: {name_or_path: embedded}\n"


@pytest.fixture(autouse=True)
def inside_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_show_prints_the_resolved_configuration_and_nothing_else():
    Path("x.yaml").write_text(GOOD)
    shown = run("config", "show", "x.yaml", "--set", "grpo.seed=1", "--set", "lora.r=8").output
    assert shown == dump_config(load_config("x.yaml", ["grpo.seed=1", "lora.r=8"]))
    Path("y.yaml").write_text(shown)
    assert run("config", "show", "y.yaml").output == shown


def test_show_explains_what_is_wrong():
    Path("x.yaml").write_text(GOOD + "grpo: {sed: 1}\n")
    result = run("config", "show", "x.yaml")
    assert result.exit_code == 2
    assert "x.yaml:3: grpo.sed: unknown setting; did you mean grpo.seed?" in result.output


def test_the_schema_is_json():
    schema = json.loads(run("config", "schema").output)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert schema["required"] == ["model", "data"]


@pytest.mark.parametrize(
    ("arguments", "name", "follows"),
    [
        ((), "grpo.yaml", "grpo-dist plan grpo.yaml"),
        (("mine.yaml",), "mine.yaml", "grpo-dist plan mine.yaml"),
        (("a'; echo b.yaml",), "a'; echo b.yaml", "grpo-dist plan 'a'\"'\"'; echo b.yaml'"),
        (("--tiny", "tiny.yaml"), "tiny.yaml", "grpo-dist run tiny.yaml"),
    ],
)
def test_init_writes_a_configuration_that_plans(arguments, name, follows):
    result = run("init", *arguments)
    assert result.exit_code == 0
    assert result.output == f"{name} written; next: {follows}\n"
    assert plan_run(load_config(name)).warnings == ()


@pytest.mark.parametrize(
    ("model", "gpus", "backend"),
    [("Qwen3-4B", 1, "vllm"), ("Qwen3-0.6B", 1, "transformers"), ("Qwen3-4B", 0, "transformers")],
)
def test_init_generates_with_vllm_where_nothing_else_fits(model, gpus, backend):
    Path("ours.jsonl").write_text(ROWS["plain.jsonl"])
    assert run("init", "--model", f"Qwen/{model}", "--data", "ours.jsonl", "--gpus", str(gpus)).exit_code == 0
    config = load_config("grpo.yaml")
    assert config.rollout.backend == backend
    assert plan_run(config)


def test_the_tiny_example_needs_no_network():
    run("init", "--tiny", "tiny.yaml")
    config = load_config("tiny.yaml")
    assert (config.model.name_or_path, config.data.name_or_path) == ("embedded", "embedded")
    assert config.cluster.gpus_per_node == 0


def test_init_leaves_what_is_there_alone():
    Path("grpo.yaml").write_text("mine")
    result = run("init")
    assert result.exit_code == 2
    assert result.output == ("Error: grpo.yaml: already exists\n  → grpo-dist init OTHER-NAME.yaml\n")
    assert Path("grpo.yaml").read_text() == "mine"


def test_init_does_not_follow_a_dangling_link():
    os.symlink("elsewhere", "grpo.yaml")
    assert run("init").exit_code == 2
    assert not Path("elsewhere").exists()


def test_init_into_nowhere():
    result = run("init", "no/such/directory/grpo.yaml")
    assert result.exit_code == 2
    assert "no/such/directory/grpo.yaml: cannot be written: no such file or directory" in result.output


ROWS = {
    "boxed.jsonl": '{"problem": "1+1?", "solution": "so \\\\boxed{2}"}\n' * 9,
    "marked.csv": "question,output\n" + '"1+1?","one more #### 2"\n' * 9,
    "nested.json": '[{"messages": "1+1?", "reward_model": {"ground_truth": "2"}}]',
    "plain.jsonl": '{"prompt": "1+1?", "answer": 2}\n' * 9,
}


@pytest.mark.parametrize(
    ("file", "columns", "extractor"),
    [
        ("boxed.jsonl", {"prompt": "problem", "answer": "solution"}, "boxed"),
        ("marked.csv", {"prompt": "question", "answer": "output"}, "gsm8k"),
        ("nested.json", {"prompt": "messages", "answer": "reward_model.ground_truth"}, "none"),
        ("plain.jsonl", {}, "none"),
    ],
)
def test_init_reads_columns_and_answers_of_a_file(file, columns, extractor):
    Path(file).write_text(ROWS[file])
    result = run("init", "--data", file, "--gpus", "0")
    assert (result.exit_code, result.stderr) == (0, "")
    config = load_config("grpo.yaml")
    assert (config.data.columns, config.data.answer_extractor) == (columns, extractor)
    assert (config.data.config, config.data.eval_split, config.data.eval_fraction) == (None, None, 0.1)
    assert (config.cluster.gpus_per_node, config.model.dtype) == (0, "float32")
    assert run("plan", "grpo.yaml").exit_code == 0


def test_init_holds_out_the_test_split_that_is_there():
    Path("d").mkdir()
    for name in ("train", "test"):
        Path(f"d/{name}.jsonl").write_text(ROWS["plain.jsonl"])
    run("init", "--data", "d", "--model", "Qwen/Qwen3-4B", "--gpus", "2")
    config = load_config("grpo.yaml")
    assert (config.data.eval_split, config.data.eval_fraction, config.cluster.gpus_per_node) == ("test", None, 2)
    assert (config.data.chat_template, config.grpo.model_extra) == (
        "tokenizer",
        {"chat_template_kwargs": {"enable_thinking": False}},
    )


@pytest.mark.parametrize(("name", "template"), [("org/x-Base", "recipe"), ("org/x-instruct", "tokenizer")])
def test_init_takes_the_template_the_model_has(name, template):
    run("init", "--model", name, "--data", "HuggingFaceH4/MATH-500")
    config = load_config("grpo.yaml")
    assert (config.model.name_or_path, config.data.chat_template) == (name, template)
    assert config.data.columns == {"prompt": "problem"}, "a known data set needs its name alone"


def test_init_tells_what_only_the_user_can_say():
    Path("odd.csv").write_text("q,zz\n1,2\n")
    result = run("init", "--data", "odd.csv")
    assert result.exit_code == 0
    assert "to be settled first: data.columns: " in result.stderr
    assert run("init", "other.yaml", "--data", "none.csv").exit_code == 2
    assert run("init", "other.yaml", "--tiny", "--gpus", "1").exit_code == 2
    assert not Path("other.yaml").exists()


STARTS = [*TASKS, "reasoning_gym/maze", "reasoning_gym/composite"]


@pytest.mark.parametrize("task", STARTS)
def test_init_writes_a_task_that_plans(task):
    assert run("init", "x.yaml", "--task", task).exit_code == 0
    config = load_config("x.yaml")
    assert config.data.name_or_path == starts.task(task).data
    assert tuple(one.name for one in config.rewards.functions) == starts.task(task).rewards
    assert config.evaluation.scorer.name == {"code": "code", "reasoning_gym": "reasoning_gym"}.get(
        starts.task(task).rewards[0], "accuracy"
    )
    check_reward_settings(config)
    check_early(config)
    assert plan_run(config).warnings == ()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_init_writes_the_settings_of_a_paper_beside_others(algorithm):
    result = run("init", "x.yaml", "--algorithm", algorithm, "--task", "countdown", "--gpus", "2")
    assert result.exit_code == 0
    config = load_config("x.yaml")
    stated = {**config.grpo.model_dump(), **(config.grpo.model_extra or {})}
    assert {name: stated[name] for name in ALGORITHMS[algorithm].grpo} == ALGORITHMS[algorithm].grpo
    assert (config.grpo.max_steps, config.cluster.gpus_per_node) == (100, 2)
    assert plan_run(config).warnings == ()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "countdwn"), "did you mean countdown?"),
        (("--task", "maze"), "did you mean reasoning_gym/maze?"),
        (("--task", "reasoning_gym/mase"), "no generator 'mase'; did you mean maze?"),
        (("--task", "gsm8k", "--data", "x.jsonl"), "--task has its own data"),
        (("--algorithm", "dr_gppo"), "did you mean dr_grpo?"),
        (("--tiny", "--algorithm", "dapo"), "--tiny has its own model and data"),
    ],
)
def test_init_says_which_start_may_be_meant(arguments, said):
    result = run("init", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split()) and not Path("grpo.yaml").exists()


def test_tasks_lists_what_init_takes():
    listed = json.loads(run("tasks", "--json").output)
    assert set(listed["tasks"]) == set(TASKS) and set(listed["algorithms"]) == set(ALGORITHMS)
    assert "knights_knaves" in listed["generators"]
    shown = run("tasks").output
    assert all(name in shown for name in (*TASKS, *ALGORITHMS, "arXiv", "knights_knaves"))
