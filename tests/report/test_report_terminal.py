"""The table in the terminal, and what importing the report costs."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic_runs as runs
from rich.console import Console
from rich.text import Text

from grpo_dist.report.html import render_html
from grpo_dist.report.numbers import NOTHING
from grpo_dist.report.record import read_run
from grpo_dist.report.summary import summary
from grpo_dist.report.terminal import print_summary, print_wide

HEAVY = {"torch", "trl", "transformers", "peft", "accelerate", "pyarrow", "pandas", "numpy"}


def printed(run: Path, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_summary(read_run(run), console)
    return console.export_text()


def test_a_whole_run(tmp_path: Path) -> None:
    text = printed(runs.make_run(tmp_path / "tiny-cpu"))
    for words in (
        "tiny-cpu  finished", "50 of 50", "greedy accuracy", "55.1%", "49.1% to 61.1%", "96.9%", "+41.8",
        "+35.9 to +47.8", "mean@8", "+38.0 to +46.0", "pass@8", "+4.0 to +11.0",
        "256 held-out problems, 95% intervals", "lost (greedy)",
    ):  # fmt: skip
        assert words in text


def test_what_trained_it_and_why(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    assert "trained by" not in printed(run)
    found = {"name": "unsloth", "reason": "one process trains on one GPU"}
    (run / "environment.json").write_text(json.dumps({"backend": found}))
    assert "unsloth: one process trains on one GPU" in printed(run)
    assert summary(read_run(run))["model_backend"] == found
    assert "one process trains on one GPU" in render_html(read_run(run))


@pytest.mark.parametrize(
    ("device", "strategy", "size", "distributed_type", "said"),
    [
        ("cpu", "ddp", 1, "NO", "1 process · CPU"),
        ("cuda", "ddp", 1, "NO", "1 process · GPU"),
        ("cpu", "ddp", 2, "MULTI_CPU", "2 processes · DDP on CPU"),
        ("cuda", "ddp", 8, "MULTI_GPU", "8 processes · DDP on GPU"),
        ("cuda", "zero2", 8, "DEEPSPEED", "8 processes · DeepSpeed ZeRO-2 on GPU"),
        ("cuda", "fsdp2", 8, "FSDP", "8 processes · FSDP2 on GPU"),
    ],
)
def test_what_it_ran_on_is_said_in_words(tmp_path: Path, device, strategy, size, distributed_type, said) -> None:
    run = runs.make_run(tmp_path / "run", steps=1, compared=False)
    planned = {"topology": {"device": device}, "strategy": strategy, "distributed_type": distributed_type}
    runs.write_json(run / "plan.json", {**planned, "batch": {"num_processes": size}, "backend": "vllm"})
    assert re.search(rf"^ran on +{said} · vllm *$", printed(run), re.MULTILINE)
    assert said.partition(" · ")[2] in render_html(read_run(run))
    assert summary(read_run(run))["distributed_type"] == distributed_type


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    text = printed(runs.make_run(tmp_path / "run", served=True), width)
    assert max(len(line) for line in text.splitlines()) <= width


def test_where_completions_came_from_and_what_that_took(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=3, served=True)
    sync = {"perf/sync_bytes": 66_100_000.0, "sampling/sampling_logp_difference/max": 0.01}
    records = [
        {"step": 1, "perf/generation_seconds": 30.0, "perf/sync_seconds": 2.0, **sync},
        {"step": 2, "perf/generation_seconds": 10.0, "perf/sync_seconds": 0.3, "perf/replica_utilization": 0.7, **sync},
        {"step": 3, "perf/generation_seconds": 12.0, "perf/sync_seconds": 0.25, "perf/replica_utilization": 0.9, **sync}
        | {"sampling/sampling_logp_difference/max": 0.42},
    ]
    runs.write_metrics(run, records)
    said = "vllm server, 2 replicas · generation 12 s · sync 0.3 s, 66.1 MB · utilisation 80% · largest"
    assert f"{said} log-probability difference 0.42" in printed(run, 200)
    assert "rollouts" not in printed(runs.make_run(tmp_path / "old", steps=3))


def test_a_run_that_generates_ahead_says_how_long_it_waited(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=3, served=True)
    took = {"perf/generation_seconds": 9.0, "perf/wait_seconds": 0.5}
    runs.write_metrics(run, [{"step": step, "perf/staleness": min(2.0, step - 1), **took} for step in (1, 2, 3)])
    assert "generation 9 s · waiting 0.5 s, policies at most 2 steps old" in printed(run, 200)


def test_what_correction_leaves_is_said_with_its_lowest(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=3, served=True)
    shares = [0.9, 0.04, 0.56]
    records = [
        {"step": step, "perf/generation_seconds": 1.0, "sampling/effective_sample_size": share}
        for step, share in enumerate(shares, start=1)
    ]
    runs.write_metrics(run, records)
    assert "effective sample 50%, at least 4%" in printed(run, 200)


def test_a_run_without_anything_yet(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    text = printed(tmp_path)
    assert "  new" in text
    assert "Training has not ended" in text
    assert "greedy accuracy" not in text


def test_brackets_in_names_are_no_markup(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1, compared=False)
    runs.write_json(run / "plan.json", {"run_name": "[bold]x[/nope]"})
    (run / "config.yaml").write_text("model: {name_or_path: '[/red]m'}\n")
    text = printed(run)
    assert "[bold]x[/nope]" in text and "[/red]m" in text


def test_importing_the_report_needs_no_training_environment() -> None:
    code = (
        "import sys\nfrom grpo_dist.report import html, terminal\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "grpo_dist" in loaded
    assert not HEAVY & set(loaded)


def test_columns_without_a_value_are_left_out_where_there_is_no_room() -> None:
    cells = [[Text("a"), Text(NOTHING), Text("1"), Text("x" * 20)], [Text("b"), Text(NOTHING), Text(NOTHING), Text("")]]
    for width, shown in ((60, True), (36, False)):
        stream = io.StringIO()
        print_wide(("run", "nothing", "something", "long"), cells, Console(file=stream, width=width))
        assert ("nothing" in stream.getvalue()) is shown and "something" in stream.getvalue()


NUMBERS = ["12,345/20,000", "0.031 → 0.724", "1,234,567", "36.7 % → 50.0 %", "+13.3"]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_wide_table_cuts_no_number_and_fits(width: int) -> None:
    headings = ("run", "grpo.learning_rate", "rewards.functions", "steps", "reward", "tokens/s", "accuracy", "points")
    runs = ["runs/a", "runs/" + "a-very-long-name-" * 4]
    rows = [list(map(Text, (run, "1e-05", "x" * 90, *NUMBERS))) for run in runs]
    stream = io.StringIO()
    print_wide(headings, rows, Console(file=stream, width=width))
    printed = stream.getvalue()
    assert max(map(len, printed.splitlines())) <= width
    assert all(printed.count(number) == len(runs) for number in NUMBERS)
    assert printed.count("x") >= 2 * 90
    tables = printed.count("┏")
    assert printed.count("runs/a ") == tables, "each table names the runs"
    assert tables > 1
