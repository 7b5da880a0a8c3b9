"""Kept rows as a file that a configuration can read."""

from __future__ import annotations

import json
import math
from datetime import date
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from grpo_dist.config.sections import DataSection
from grpo_dist.data.filtered import options, settings_for, write_filtered
from grpo_dist.data.sources import load_rows
from grpo_dist.errors import DataError

KEPT = [(2, 0.75), (0, 0.25)]


def source(tmp_path: Path, **columns) -> Path:
    path = tmp_path / "source.parquet"
    parquet.write_table(pyarrow.table({**columns, "grpo_dist_row": [0, 1, 2]}), path)
    return path


@pytest.mark.parametrize("name", ["kept.jsonl", "kept.parquet"])
def test_rows_keep_their_columns_and_their_order(tmp_path, name):
    rows = source(tmp_path, question=["é\n", "b", "c"], tags=[["x"], [], None], level=[1, None, 3])
    write_filtered(rows, KEPT, 4, tmp_path / name)
    read = load_rows(DataSection(name_or_path=str(tmp_path / name)), "train")
    assert read.to_list() == [
        {"question": "é\n", "tags": ["x"], "level": 1, "pass_rate": 0.25, "samples": 4},
        {"question": "c", "tags": None, "level": 3, "pass_rate": 0.75, "samples": 4},
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "source.parquet"]


def test_the_numbers_of_an_earlier_filter_are_replaced(tmp_path):
    rows = source(tmp_path, prompt=["a", "b", "c"], pass_rate=[1.0, 1.0, 1.0], samples=[2, 2, 2])
    write_filtered(rows, KEPT, 4, tmp_path / "kept.jsonl")
    assert json.loads((tmp_path / "kept.jsonl").read_text().splitlines()[0]) == {
        "prompt": "a",
        "pass_rate": 0.25,
        "samples": 4,
    }


def test_json_says_dates_as_text_and_nan_as_null(tmp_path):
    rows = source(tmp_path, day=[date(2026, 1, 2)] * 3, level=[math.nan] * 3)
    write_filtered(rows, KEPT[:1], 4, tmp_path / "kept.jsonl")
    kept = json.loads((tmp_path / "kept.jsonl").read_text())
    assert (kept["day"], kept["level"]) == ("2026-01-02", None)


def test_what_json_cannot_hold_leaves_no_file(tmp_path):
    rows = source(tmp_path, picture=[b"1", b"2", b"3"])
    with pytest.raises(DataError, match="bytes"):
        write_filtered(rows, KEPT, 4, tmp_path / "kept.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["source.parquet"]


def test_what_chose_among_the_rows_is_not_applied_twice():
    section = DataSection(
        name_or_path="owner/name",
        config="en",
        revision="v1",
        split="train[:50]",
        eval_split="test",
        max_prompt_length_quantile=0.9,
        columns={"prompt": "question"},
    )
    settings = settings_for(section, Path("my file.jsonl"))
    assert settings == [
        "data.name_or_path=my file.jsonl",
        "data.split=train",
        "data.config=null",
        "data.revision=null",
        "data.eval_split=null",
        "data.max_prompt_length_quantile=null",
    ]
    assert options(settings[:2]) == "--set 'data.name_or_path=my file.jsonl' --set data.split=train"
    assert settings_for(DataSection(name_or_path="x.jsonl"), Path("y.jsonl")) == ["data.name_or_path=y.jsonl"]
