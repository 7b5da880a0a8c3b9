"""`filter` around the process that asks the model."""

from __future__ import annotations

import json

import pyarrow
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from grpo_dist.cli import main
from grpo_dist.evaluation.pass_rates import PassRate

RIGHT = (0, 1, 2, 4)


@pytest.fixture
def asked(workplace, monkeypatch) -> list:
    """The configurations that the model would have been asked with; it solves RIGHT of four."""
    configs = []

    def stub(config, work, terminal, *, command):
        configs.append(config)
        work.source_rows.parent.mkdir(parents=True, exist_ok=True)
        work.config.touch()
        table = pyarrow.table({"prompt": ["a", "b", "c", "d"], "grpo_dist_row": range(4)})
        parquet.write_table(table, work.source_rows)
        return [PassRate(row, 4, right, 0) for row, right in enumerate(RIGHT)]

    monkeypatch.setattr("grpo_dist.launch.commands.pass_rates", stub)
    return configs


def grpo_dist(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ("filter", "tiny.yaml", "--samples", "4", *arguments))
    assert result.exit_code == code, result.output
    return result


def test_it_says_what_was_kept_and_what_to_type(asked, workplace):
    told = grpo_dist().stdout
    kept = [json.loads(line)["prompt"] for line in (workplace / "tiny-filtered.jsonl").read_text().splitlines()]
    assert kept == ["b", "c"]
    assert "kept     2 of 4 problems, with pass rates from 0.25 to 0.75; 1 too hard, 1 too easy" in told
    assert told.endswith("next     grpo-dist run tiny.yaml --set data.name_or_path=tiny-filtered.jsonl\n")


def test_it_asks_as_training_does(asked, workplace):
    path = workplace / "tiny.yaml"
    path.write_text(f"{path.read_text()}evaluation: {{temperature: 0.2, max_completion_length: 5, num_samples: 2}}\n")
    grpo_dist()
    [config] = asked
    drawn = config.evaluation
    assert (drawn.num_samples, drawn.temperature, drawn.max_completion_length) == (4, None, None)


def test_another_band_replaces_only_a_file_of_filter(asked, workplace):
    grpo_dist()
    found = json.loads(grpo_dist("--low", "0", "--high", "0.25", "--json").stdout)
    assert (found["kept"], found["too_hard"], found["too_easy"], found["histogram"]) == (2, 0, 2, [1, 1, 1, 0, 1])
    assert len((workplace / "tiny-filtered.jsonl").read_text().splitlines()) == 2
    (workplace / "mine.jsonl").write_text("mine")
    assert "already exists" in grpo_dist("--output", "mine.jsonl", code=2).stderr
    assert (workplace / "mine.jsonl").read_text() == "mine"


def test_an_empty_band_writes_nothing(asked, workplace):
    told = grpo_dist("--low", "0.6", "--high", "0.9", code=1).stderr
    assert "none of 4 problems has a pass rate from 0.6 to 0.9: 3 below, 1 above" in told
    assert not (workplace / "tiny-filtered.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--output", "x.csv"), ".jsonl, .parquet"),
        (("--low", "0.9", "--high", "0.1"), "--low above --high"),
        (("--low", "1.5"), "0<=x<=1"),
        (("--samples", "1"), "x>=2"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(asked, arguments, words):
    assert words in grpo_dist(*arguments, code=2).stderr
    assert asked == []


def test_several_machines_are_refused(workplace):
    assert "`grpo-dist filter` runs on one" in grpo_dist("--set", "cluster.nodes=2", code=2).stderr


def test_the_next_command_repeats_what_was_set(tmp_path, monkeypatch):
    from grpo_dist.cli.filter import _next

    monkeypatch.chdir(tmp_path)
    stated = ("model.name_or_path=a b", "data.name_or_path=first.jsonl", "grpo.seed=4")
    settings = ["data.name_or_path=x.jsonl", "data.config=null"]
    before = "grpo-dist run my.yaml --set 'model.name_or_path=a b' --set data.name_or_path=x.jsonl --set grpo.seed=4"
    assert _next("my.yaml", stated, settings) == f"{before} --set data.config=null"
    (tmp_path / "runs" / "my").mkdir(parents=True)
    assert _next("my.yaml", (), settings).endswith(" --output runs/my-filtered"), "where the run before it stands"
