"""What is read from a run directory, and what is said when it cannot be."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import synthetic_runs as runs

from grpo_dist.errors import ReportError
from grpo_dist.report.numbers import ends
from grpo_dist.report.record import read_run
from grpo_dist.report.summary import summary

KEYS = {
    "run", "state", "model", "model_backend", "steps", "max_steps", "world_size", "distributed_type", "backend",
    "reward", "tokens_per_second", "training_seconds", "rollouts", "problems", "different_problems", "k", "confidence",
    "scorer", "gained", "lost", "difference", "differences", "base", "trained",
}  # fmt: skip
SCORE_KEYS = {
    "greedy_accuracy", "greedy_accuracy_interval", "mean_at_k", "mean_at_k_interval", "pass_at_k",
    "pass_at_k_interval", "mean_completion_length", "clipped_ratio",
}  # fmt: skip


def test_summary_of_a_whole_run(tmp_path: Path) -> None:
    found = summary(read_run(runs.make_run(tmp_path / "tiny", steps=50)))
    assert set(found) == KEYS
    assert set(found["base"]) == set(found["trained"]) == SCORE_KEYS
    assert (found["run"], found["state"], found["model"]) == ("tiny", "complete", "embedded")
    assert (found["steps"], found["max_steps"], found["world_size"]) == (50, 50, 1)
    assert (found["distributed_type"], found["backend"]) == ("NO", "transformers")
    assert (found["base"]["greedy_accuracy"], found["trained"]["greedy_accuracy"]) == (0.551, 0.969)
    assert (found["trained"]["mean_at_k"], found["trained"]["pass_at_k"]) == (0.81, 1.0)
    assert found["base"]["greedy_accuracy_interval"] == pytest.approx({"low": 0.491, "high": 0.611})
    assert found["difference"] == {"estimate": 0.418, "low": 0.359, "high": 0.478}
    assert (found["problems"], found["k"]) == (256, 8)


def test_reward_is_the_mean_of_the_first_and_last_tenth(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=20)
    runs.write_metrics(run, [{"step": step, "reward": float(step)} for step in range(1, 21)])
    assert summary(read_run(run))["reward"] == {"first": 1.5, "last": 19.5}


@pytest.mark.parametrize(("values", "expected"), [([], (None, None)), ([3.0], (3.0, 3.0)), ([None, 1.0, 2.0], (1, 2))])
def test_ends_take_at_least_one_logged_value(values: list[float | None], expected: tuple) -> None:
    assert ends(values) == expected


def test_speed_is_the_median_so_that_a_slow_first_step_does_not_count(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=3)
    speeds = [10.0, 1000.0, 1002.0]
    runs.write_metrics(run, [{"step": i, "perf/tokens_per_second": s, "step_time": 2.0} for i, s in enumerate(speeds)])
    found = summary(read_run(run))
    assert (found["tokens_per_second"], found["training_seconds"]) == (1000.0, 6.0)


def test_rollouts_in_a_few_numbers(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=3, served=True)
    records = [
        {"step": 1, "perf/sync_seconds": 9.0, "perf/idle_share": 0.9, "perf/canary_difference": 0.002},
        {"step": 2, "perf/sync_seconds": 1.0, "perf/idle_share": 0.5, "perf/canary_difference": 0.001},
        {"step": 3, "perf/sync_seconds": 2.0, "perf/idle_share": 0.4, "sampling/groups_drawn": 20.0},
    ]
    left = [{"sampling/effective_sample_size": share} for share in (0.9, 0.3, 0.6)]
    weak = [{"sampling/low_weight_share": share} for share in (0.0, 0.5, 0.1)]
    runs.write_metrics(run, [record | one | other for record, one, other in zip(records, left, weak, strict=True)])
    found = summary(read_run(run))["rollouts"]
    assert {name: value for name, value in found.items() if value is not None} == {
        "mode": "server",
        "replicas": 2,
        "sync_seconds": 2.0,
        "idle_share": pytest.approx(0.6),
        "canary_difference_max": 0.002,
        "effective_sample_size": pytest.approx(0.6),
        "effective_sample_size_min": 0.3,
        "low_weight_share": pytest.approx(0.2),
        "groups_drawn": 20.0,
    }
    old = summary(read_run(runs.make_run(tmp_path / "old", steps=3)))["rollouts"]
    assert set(old) == set(found) and set(old.values()) == {None}


def test_colocated_engines_are_counted(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    topology = {"mode": "colocate", "num_processes": 8, "tensor_parallel_size": 2, "replicas": []}
    runs.write_json(run / "plan.json", {"topology": topology})
    assert summary(read_run(run))["rollouts"]["replicas"] == 4


def test_without_comparison_every_key_is_there_and_null(tmp_path: Path) -> None:
    found = summary(read_run(runs.make_run(tmp_path / "run", compared=False)))
    assert set(found) == KEYS
    assert found["state"] == "running-or-stopped"
    assert set(found["trained"]) == SCORE_KEYS
    assert set(found["trained"].values()) == {None}
    assert found["difference"] == {"estimate": None, "low": None, "high": None}


def test_states(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    assert read_run(run).state == "complete"
    (run / "comparison.json").unlink()
    assert read_run(run).state == "trained"
    (run / "adapter").rmdir()
    assert read_run(run).state == "running-or-stopped"


def test_a_torn_last_line_is_skipped(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=5)
    with open(run / "metrics.jsonl", "a") as handle:
        handle.write('{"step": 6, "rewa')
    assert read_run(run).steps == 5


def test_a_step_done_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=2)
    runs.write_metrics(run, [{"step": 1, "reward": 0.0}, {"step": 2, "reward": 1.0}, {"step": 1, "reward": 5.0}])
    assert [(m["step"], m["reward"]) for m in read_run(run).metrics] == [(1, 5.0), (2, 1.0)]


def test_lines_without_a_step_are_no_steps(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    (run / "metrics.jsonl").write_text('{"train_runtime": 3.0}\n[]\n7\n\n{"step": true}\n{"step": 4}\n')
    assert [m["step"] for m in read_run(run).metrics] == [4]


def test_nan_and_infinity_become_null(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    line = '{"step": 1, "reward": NaN, "perf/tokens_per_second": Infinity, "step_time": 1e999}\n'
    (run / "metrics.jsonl").write_text(line)
    found = summary(read_run(run))
    assert found["reward"] == {"first": None, "last": None}
    assert found["tokens_per_second"] is found["training_seconds"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("name", ["config.yaml", "plan.json", "prepared.json", "environment.json", "metrics.jsonl"])
def test_any_one_file_may_be_missing(tmp_path: Path, name: str) -> None:
    run = runs.make_run(tmp_path / "run")
    (run / name).unlink()
    assert json.dumps(summary(read_run(run)), allow_nan=False)


def test_comparison_without_samples(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    fields = runs.comparison(random.Random(0), problems=4, k=0)
    for model in ("base", "trained"):
        fields[model].update(mean_at_k=None, pass_at_k=None)
    runs.write_json(run / "comparison.json", fields)
    found = summary(read_run(run))
    assert found["k"] == 0
    assert found["trained"]["pass_at_k"] is found["trained"]["pass_at_k_interval"] is None
    assert found["trained"]["greedy_accuracy"] == 0.969


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("plan.json", '{"batch": ', "not JSON"),
        ("plan.json", "[1]", "should hold an object, not list"),
        ("config.yaml", "model: [", "not YAML"),
        ("config.yaml", "just words", "should hold an object, not str"),
        ("comparison.json", '{"problems": 3}', "the key 'k' is missing"),
        ("comparison.json", json.dumps({**runs.comparison(random.Random(0), problems=1), "base": 3}), "wrong kind"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    run = runs.make_run(tmp_path / "run")
    (run / name).write_text(text)
    with pytest.raises(ReportError) as caught:
        read_run(run)
    assert str(run / name) in caught.value.message
    assert said in caught.value.message
    assert f"mv {run / name}" in caught.value.hint


def test_a_mistyped_run_is_found_again(tmp_path: Path) -> None:
    for name in ("tiny-cpu", "qwen3-4b"):
        runs.make_run(tmp_path / name, steps=1)
    runs.make_run(tmp_path / ".tiny-cpu.draft", steps=1)
    with pytest.raises(ReportError) as caught:
        read_run(tmp_path / "tiny-cqu")
    assert caught.value.message == f"{tmp_path / 'tiny-cqu'}: there is no such run directory"
    assert caught.value.hint == (
        f"did you mean {tmp_path / 'tiny-cpu'}? Other runs there: {tmp_path / 'qwen3-4b'}, {tmp_path / 'tiny-cpu'}"
    )


def test_the_folder_of_the_runs_is_not_a_run(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "runs" / "a", steps=1)
    with pytest.raises(ReportError) as caught:
        read_run(run.parent)
    assert "none of config.yaml, plan.json, metrics.jsonl is in it" in caught.value.message
    assert caught.value.hint == f"give one of the runs in it: {run}"


def test_a_file_of_a_run_is_not_a_run(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "a", steps=1)
    with pytest.raises(ReportError, match="a file, not a run directory") as caught:
        read_run(run / "metrics.jsonl")
    assert caught.value.hint == f"give the run directory: {run}"


def test_nothing_like_a_run_anywhere(tmp_path: Path) -> None:
    with pytest.raises(ReportError) as caught:
        read_run(tmp_path / "no" / "where")
    assert "--output" in caught.value.hint


def test_many_runs_are_not_all_listed(tmp_path: Path) -> None:
    for i in range(11):
        (tmp_path / f"r{i:02}").mkdir()
        (tmp_path / f"r{i:02}" / "plan.json").write_text("{}")
    with pytest.raises(ReportError) as caught:
        read_run(tmp_path)
    assert caught.value.hint.endswith("r07 and 3 more")
