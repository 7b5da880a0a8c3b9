"""Which runs can be made longer, and that their results are not lost meanwhile."""

from __future__ import annotations

import json

import pytest

from grpo_dist.config import load_config
from grpo_dist.errors import RunDirectoryError
from grpo_dist.launch.open import create_or_resume, planned_steps
from grpo_dist.plan import plan_run
from grpo_dist.run.checkpoints import note_trained, seal
from grpo_dist.run.directory import RunDirectory

TEXT = """
model: {name_or_path: embedded, dtype: float32}
data: {name_or_path: embedded}
grpo: {prompts_per_step: 2, num_generations: 2, max_completion_length: 8, save_steps: 2}
cluster: {gpus_per_node: 0}
"""


@pytest.fixture
def opened(tmp_path):
    (tmp_path / "x.yaml").write_text(TEXT)

    def open_with(*overrides: str) -> RunDirectory:
        config, run = load_config(tmp_path / "x.yaml", overrides), RunDirectory(tmp_path / "run")
        create_or_resume(config, plan_run(config), run, resume_command="AGAIN")
        return run

    return open_with


def finish(run: RunDirectory, step: int, max_steps: int) -> None:
    checkpoint = run.checkpoints / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": max_steps}))
    seal(checkpoint)
    (run.path / "prepared.json").write_text(json.dumps({"train": 2 * max_steps + 1}))
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").write_text("weights")
    for path in (run.comparison, run.report, run.metrics):
        path.write_text(path.name)


@pytest.mark.parametrize(
    ("scheduler", "warmup"),
    [("constant", 0.1), ("constant_with_warmup", 3), ("constant_with_warmup", 0), ("inverse_sqrt", 2)],
)
@pytest.mark.parametrize("begun", ["grpo.max_steps=6", "grpo.num_train_epochs=1"])
def test_a_finished_run_is_made_longer(opened, scheduler, warmup, begun):
    stated = (f"grpo.lr_scheduler_type={scheduler}", f"grpo.warmup_steps={warmup}", begun)
    run = opened(*stated)
    finish(run, 6, 6)
    opened(*stated, "grpo.max_steps=9")
    assert load_config(run.config).grpo.max_steps == 9
    assert not any(path.exists() for path in (run.adapter, run.comparison, run.report))
    kept = run.finished / "step-6"
    assert (kept / "adapter" / "adapter_model.safetensors").read_text() == "weights"
    assert {path.name for path in kept.iterdir()} == {"adapter", "comparison.json", "report.html", "metrics.jsonl"}
    opened(*stated, "grpo.max_steps=9")


@pytest.mark.parametrize(
    ("stated", "now", "says"),
    [
        (("grpo.lr_scheduler_type=linear",), "grpo.max_steps=9", "only constant, constant_with_warmup"),
        (("grpo.lr_scheduler_type=cosine",), "grpo.max_steps=9", "start another run of 9 steps with --output DIR"),
        (("grpo.lr_scheduler_type=constant",), "grpo.max_steps=4", "not shorter"),
        (("grpo.lr_scheduler_type=constant",), "grpo.max_steps=-1", "not shorter"),
        (("grpo.lr_scheduler_type=constant_with_warmup",), "grpo.max_steps=60", "--set grpo.warmup_steps=1"),
        (("grpo.lr_scheduler_type=constant", "grpo.seed=1"), "grpo.seed=2", "resume with what it was started with"),
    ],
)
def test_what_cannot_be_made_longer_stays_as_it_is(opened, stated, now, says):
    stated = ("grpo.max_steps=6", *stated)
    run = opened(*stated)
    finish(run, 6, 6)
    before = run.config.read_text()
    with pytest.raises(RunDirectoryError) as raised:
        opened(*stated, now)
    assert says in str(raised.value)
    assert run.adapter.exists() and run.comparison.exists() and run.config.read_text() == before


def test_a_warm_up_that_stays_the_same_may_be_stated_in_steps(opened):
    stated = ("grpo.lr_scheduler_type=constant_with_warmup", "grpo.max_steps=6")
    finish(opened(*stated), 6, 6)
    run = opened(*stated, "grpo.max_steps=60", "grpo.warmup_steps=1")
    assert load_config(run.config).grpo.warmup_steps == 1


def test_a_run_that_is_not_finished_is_made_longer_too(opened):
    run = opened("grpo.lr_scheduler_type=constant", "grpo.max_steps=6")
    opened("grpo.lr_scheduler_type=constant", "grpo.max_steps=9")
    assert load_config(run.config).grpo.max_steps == 9
    assert not run.finished.exists()


def test_epochs_are_raised_as_steps_are(opened):
    stated = ("grpo.lr_scheduler_type=constant_with_warmup", "grpo.warmup_steps=1")
    finish(opened(*stated, "grpo.num_train_epochs=1"), 6, 6)
    run = opened(*stated, "grpo.num_train_epochs=2.5")
    assert not run.adapter.exists() and (run.finished / "step-6").is_dir()
    assert planned_steps(load_config(run.config), run) == 15
    with pytest.raises(RunDirectoryError, match=r"num_train_epochs: 6 steps, and the run has 15: .* not shorter"):
        opened(*stated, "grpo.num_train_epochs=1")


@pytest.mark.parametrize(("now", "goes_on"), [("null", True), ("20", True), ("05:00", False), ("00:30", False)])
def test_a_run_ended_by_its_time_goes_on_with_more_of_it(opened, now, goes_on):
    stated = ("grpo.max_steps=9", "grpo.lr_scheduler_type=linear")
    run = opened(*stated, "grpo.max_time=10")
    finish(run, 6, 9)
    (run.checkpoints / "checkpoint-6" / "complete.json").unlink()
    note_trained(run.checkpoints / "checkpoint-6", 603.25)
    seal(run.checkpoints / "checkpoint-6")
    opened(*stated, f"grpo.max_time={now}")
    assert run.adapter.exists() is not goes_on
    assert (run.finished / "step-6").exists() is goes_on


def test_another_difference_beside_the_steps_is_refused(opened):
    run = opened("grpo.lr_scheduler_type=constant", "grpo.max_steps=6")
    finish(run, 6, 6)
    with pytest.raises(RunDirectoryError, match="another configuration"):
        opened("grpo.lr_scheduler_type=constant", "grpo.max_steps=9", "grpo.beta=0.1")
    assert run.adapter.exists()
