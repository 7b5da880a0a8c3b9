from __future__ import annotations

import json
from pathlib import Path

import pytest
from planning import config

from grpo_dist.config import dump_config
from grpo_dist.errors import PlanError
from grpo_dist.plan import plan_run
from grpo_dist.plan.calibrate import measured_in

STATED = config(grpo={"max_completion_length": 1024})


def run_of(
    directory: Path, seconds: float, steps: int = 12, model: str | None = None, generation: float | None = None
) -> Path:
    stated = STATED if model is None else config(model)
    (directory / "config.yaml").write_text(dump_config(stated))
    lines = [
        {
            "step": step,
            "time": 1000.0 + step * seconds,
            "step_time": seconds,
            "completions/mean_length": 300.0,
            "completions/max_length": 900.0,
            **({} if generation is None else {"perf/generation_seconds": generation}),
        }
        for step in range(1, steps + 1)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def test_the_next_estimate_is_what_was_measured(tmp_path):
    plan = plan_run(STATED, measured_in(run_of(tmp_path, seconds=321.0)))
    assert plan.time["seconds_per_step"] == pytest.approx(321.0, rel=0.01)
    assumed = {one["name"]: one for one in plan.time["assumptions"]}
    assert assumed["completion tokens, mean"]["value"] == 300
    assert assumed["completion tokens, longest of a step"]["value"] == 900
    assert "metrics.jsonl" in assumed["completion tokens, mean"]["source"]
    assert "measured" in assumed["generation_scale"]["source"]


def test_generation_and_the_rest_are_fitted_apart_when_both_were_measured(tmp_path):
    time = plan_run(STATED, measured_in(run_of(tmp_path, seconds=321.0, generation=300.0))).time
    parts = {part["name"]: part["seconds"] for part in time["parts"]}
    assert parts["generation"] == pytest.approx(300.0, rel=1e-3)
    assert sum(parts.values()) - parts["generation"] == pytest.approx(21.0, rel=1e-3)
    sources = {one["name"]: one["source"] for one in time["assumptions"]}
    assert "one scale" not in sources["generation_scale"] + sources["training_scale"]


def test_a_shorter_limit_cuts_what_was_measured(tmp_path):
    measured = measured_in(run_of(tmp_path, seconds=321.0))
    assumed = plan_run(config(grpo={"max_completion_length": 128}), measured).time["assumptions"]
    values = {one["name"]: one["value"] for one in assumed}
    assert values["completion tokens, mean"] == values["completion tokens, longest of a step"] == 128


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, r"no run to calibrate with"),
        (lambda path: run_of(path, 10.0, steps=3), r"has 3 lines"),
        (lambda path: run_of(path, 10.0, model="un/known"), r"cannot calibrate: .*un/known"),
    ],
    ids=["nothing there", "too short", "model not known"],
)
def test_what_cannot_calibrate_says_so(make, message, tmp_path):
    with pytest.raises(PlanError, match=message) as caught:
        measured_in(make(tmp_path))
    assert "--calibrate" in caught.value.hint
