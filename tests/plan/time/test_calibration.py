from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timing_setups import layout, workload

from grpo_dist.errors import PlanError
from grpo_dist.plan.calibrate import calibrate
from grpo_dist.plan.time import DEFAULTS, Lengths, step_time


def run(truth, steps=12, setup=None, where=None, uncounted=0.0, generation=True):
    """Lines of `metrics.jsonl` a run would write if `truth` were right; the first steps are slow, one is an outlier."""
    setup, where = setup or workload(), where or layout()
    lines, now = [], 1.7e9
    for step in range(1, steps + 1):
        mean = 900.0 + 10 * (step % 5)
        lengths = Lengths(setup.lengths.prompt, mean, 1846.0)
        found = step_time(replace(setup, lengths=lengths), where, truth)
        slow = 3.0 if step <= 3 or step == 8 else 1.0
        seconds = slow * found.seconds
        now += seconds + uncounted
        line = {
            "step": step,
            "time": now,
            "step_time": seconds,
            "completions/mean_length": mean,
            "completions/max_length": 1846.0,
            "num_tokens": 1000.0 * step,
            "perf/completion_tokens_per_second": 512 * mean / seconds,
        }
        lines.append(line | ({"perf/generation_seconds": slow * found.part("generation")} if generation else {}))
    return lines


scales = st.floats(0.2, 5.0)


@settings(deadline=None)
@given(scales, scales, st.floats(0, 20))
def test_recovers_the_truth(generation, training, uncounted):
    truth = DEFAULTS.with_values("truth", generation_scale=generation, training_scale=training)
    fitted = calibrate(run(truth, uncounted=uncounted), workload(), layout())
    assert fitted.generation_scale == pytest.approx(generation, rel=1e-6)
    assert fitted.training_scale == pytest.approx(training, rel=1e-6)
    assert fitted.other_seconds == pytest.approx(uncounted, abs=1e-3)


def test_predicts_the_run_it_was_fitted_to_and_another_size():
    truth = DEFAULTS.with_values("truth", generation_scale=1.7, training_scale=0.6)
    fitted = calibrate(run(truth), workload(), layout())
    bigger = (workload(prompts_per_step=128), layout(nodes=4))
    assert step_time(*bigger, fitted).seconds == pytest.approx(step_time(*bigger, truth).seconds, rel=1e-4)


def test_without_generation_seconds_there_is_one_scale_and_it_says_so():
    truth = DEFAULTS.with_values("truth", generation_scale=2.0, training_scale=2.0)
    fitted = calibrate(run(truth, generation=False), workload(), layout())
    assert (fitted.generation_scale, fitted.training_scale) == pytest.approx((2.0, 2.0))
    assert "one scale for all" in dict(fitted.replaced)["generation_scale"]


def test_without_step_time_the_clock_tells():
    truth = DEFAULTS.with_values("truth", generation_scale=2.0, training_scale=2.0)
    lines = [{key: line[key] for key in ("step", "time", "completions/mean_length")} for line in run(truth)]
    fitted = calibrate(lines, workload(), layout())
    assert fitted.generation_scale == pytest.approx(2.0, rel=1e-6)
    assert fitted.other_seconds == 0
    assert "other_seconds" not in dict(fitted.replaced)


@pytest.mark.parametrize("num_iterations", [2, 3, 4])
def test_a_window_of_several_steps_is_fitted_as_one(num_iterations):
    """Only the first of its steps generates, and says how long the completions are."""
    setup, lines = workload(num_iterations=num_iterations), []
    truth = DEFAULTS.with_values("truth", generation_scale=2.0, training_scale=0.5)
    for line in run(truth, steps=30, setup=setup):
        generation = line.pop("perf/generation_seconds")
        line["step_time"] -= generation
        if line["step"] % num_iterations == 1:
            line["perf/generation_seconds"] = num_iterations * generation
            line["step_time"] += num_iterations * generation
        else:
            del line["completions/mean_length"], line["completions/max_length"]
        lines.append(line)
    fitted = calibrate(lines, setup, layout())
    assert fitted.generation_scale == pytest.approx(2.0, rel=0.02)
    assert fitted.training_scale == pytest.approx(0.5, rel=0.02)


def test_lines_of_several_steps_log_the_seconds_of_one_generation():
    """`grpo.logging_steps` 2: TRL logs means over the steps of a line, and a window of two generates once."""
    setup = workload(num_iterations=2)
    truth = DEFAULTS.with_values("truth", generation_scale=2.0, training_scale=0.5)
    lines = run(truth, steps=15, setup=setup)
    for line in lines:
        line["step"] *= 2
        line["perf/generation_seconds"] *= 2
    fitted = calibrate(lines, setup, layout())
    assert (fitted.generation_scale, fitted.training_scale) == pytest.approx((2.0, 0.5), rel=0.02)


def test_what_was_fitted_stands_among_the_assumptions():
    fitted = calibrate(run(DEFAULTS.with_values("truth", generation_scale=1.25)), workload(), layout())
    rows = {row.name: row for row in fitted.assumptions()}
    assert rows["generation_scale"].value == pytest.approx(1.25)
    assert rows["generation_scale"].source == "measured, median of 9 samples after warm-up"
    assert "PyTorch" in rows["decode_bandwidth"].source


def test_null_values_are_left_out():
    lines = run(DEFAULTS.with_values("truth", generation_scale=2.0), steps=14)
    lines[6]["completions/mean_length"] = None
    lines[9]["step_time"] = None
    lines[9]["time"] = None
    assert calibrate(lines, workload(), layout()).generation_scale == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has 0 lines; calibrating needs 6"),
        (run(DEFAULTS)[:5], "has 5 lines; calibrating needs 6"),
        ([{"step": n, "time": 10.0 * n, "step_time": 9.0} for n in range(9)], "no line has completions/mean_length"),
        (
            [{"step": n, "completions/mean_length": 5.0} for n in range(9)],
            r"no line has step_time \(or step and time\)",
        ),
        ([{"step": n} for n in range(9)], "no line has completions/mean_length, nor step_time"),
    ],
)
def test_metrics_that_cannot_calibrate(lines, message):
    with pytest.raises(PlanError, match=message) as raised:
        calibrate(lines, workload(), layout())
    assert "leave --calibrate out" in raised.value.hint


def test_nothing_of_the_machine_learning_stack_is_imported():
    import subprocess
    import sys

    code = "import sys, grpo_dist.plan.time; print({'torch', 'transformers', 'trl', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
