"""status and logs: of jobs, with stand-ins for Slurm's programs, and of runs of this machine."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from grpo_dist.cli import main
from grpo_dist.run.control import AttemptOutcome
from grpo_dist.run.directory import RunDirectory
from grpo_dist.slurm import logs
from grpo_dist.slurm.client import parse_seconds

pytestmark = pytest.mark.usefixtures("workplace")


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def status(*runs: str) -> dict:
    (one,) = json.loads(run("status", *runs, "--json").stdout)
    return one


@pytest.fixture
def local(workplace):
    """A run of this machine that was rendered and not started."""
    run("render", "tiny.yaml", "--output", "runs/tiny")
    return RunDirectory(workplace / "runs" / "tiny")


def train(run: RunDirectory, *times: float) -> None:
    """Log a step at each time, in seconds."""
    lines = [
        {"step": step, "time": at, "reward": step / 2, "perf/tokens_per_second": 100.0 * step}
        for step, at in enumerate(times, start=1)
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def log(run: RunDirectory, attempt: int, stage: str, text: str) -> Path:
    path = run.logs / f"attempt-{attempt}" / f"{stage}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_job_waits_runs_and_ends(slurm, workplace):
    run("submit", "tiny.yaml")
    there = RunDirectory(workplace / "runs" / "tiny")
    waiting = status()
    assert (waiting["state"], waiting["job_id"], waiting["reason"]) == ("queued", "41", "Priority")
    assert (waiting["step"], waiting["max_steps"], waiting["seconds_left_of_limit"]) == (0, 30, None)
    slurm.queue(f"41|RUNNING|None|1-02:03:04|node[1-2]|{there.path}")
    log(there, 1, "train", "")
    log(there, 2, "train", "")
    train(there, 10, 12, 14, 900, 902)
    running = status("runs/tiny")
    assert (running["state"], running["queue_state"], running["nodes"]) == ("running", "RUNNING", "node[1-2]")
    assert (running["step"], running["reward"], running["tokens_per_second"], running["attempts"]) == (5, 2.5, 500, 2)
    assert running["seconds_left_of_limit"] == 93784
    assert running["seconds_left_of_steps"] == 25 * 2, "the pause between attempts is no step's time"
    slurm.queue(f"41|TIMEOUT|TimeLimit|0:00|node[1-2]|{there.path}")
    assert (status()["state"], status()["reason"]) == ("stopped", "TimeLimit")
    slurm.queue(f"41|CANCELLED|Priority|0:00||{there.path}")
    assert (status()["state"], status()["reason"]) == ("stopped", None), "that it waited is no reason any more"
    slurm.queue()
    assert status()["state"] == "stopped", "Slurm has forgotten the job"
    slurm.queue(f"41|FAILED|NonZeroExitCode|0:00|node1|{there.path}")
    (there.path / "failure.json").write_text(json.dumps({"why": "train ended", "cause": "the disk is full"}))
    assert (status()["state"], status()["reason"]) == ("failed", "the disk is full")
    slurm.queue(f"41|PENDING|BeginTime|10:00||{there.path}")
    assert status()["state"] == "queued", "put back in the queue"


def test_the_table_says_the_same(slurm, workplace):
    run("submit", "tiny.yaml")
    train(RunDirectory(workplace / "runs" / "tiny"), 10, 12)
    table = run("status").stdout
    for told in ("runs/tiny", "queued", "41", "2/30", "56 s", "PENDING", "Priority"):
        assert told in table


def test_runs_of_this_machine_need_no_slurm(local, monkeypatch, workplace):
    monkeypatch.setenv("PATH", str(workplace))
    assert status()["state"] == "new"
    log(local, 1, "train", "")
    assert status()["state"] == "stopped"
    with local.locked():
        assert status()["state"] == "running"
    local.adapter.mkdir()
    assert status()["state"] == "stopped", "the comparison is still to come"


def test_a_run_without_a_comparison_is_finished_with_its_adapter(workplace):
    run("render", "tiny.yaml", "--output", "runs/tiny", "--set", "evaluation.enabled=false")
    (workplace / "runs" / "tiny" / "adapter").mkdir()
    assert status()["state"] == "finished"


def test_a_controller_that_does_not_answer_is_told_and_the_files_count(slurm, local):
    slurm.is_down()
    result = run("status")
    assert "Unable to contact slurm controller" in result.stderr
    assert "runs/tiny" in result.stdout


def test_all_runs_are_found_those_of_sweeps_too(slurm, local):
    run("sweep", "tiny.yaml", "--set", "grpo.seed=1,2")
    found = [one["run"] for one in json.loads(run("status", "--json").stdout)]
    assert found == ["runs/tiny", "runs/tiny-sweep/0-seed-1", "runs/tiny-sweep/1-seed-2"]


def test_no_run_no_status(workplace):
    assert "no such run directory" in run("status", code=1).stderr
    assert "no such run directory" in run("status", "runs/nonesuch", code=1).stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [("9:58", 598), ("58", 58), ("1:00:00", 3600), ("2-00:00:01", 172801), ("UNLIMITED", None), ("INVALID", None)],
)
def test_times_are_slurms(text, value):
    assert parse_seconds(text) == value


def test_logs_shows_the_last_stage_of_the_last_attempt(local):
    log(local, 1, "train", "first\n")
    log(local, 2, "prepare", "prepared\n")
    log(local, 2, "train", "second\n")
    log(local, 2, "replica-0", "served\n")
    assert run("logs", "runs/tiny").stdout == "second\n"
    assert run("logs", "runs/tiny", "--attempt", "1").stdout == "first\n"
    assert run("logs", "runs/tiny", "--stage", "prepare").stdout == "prepared\n"
    assert run("logs", "runs/tiny", "--stage", "replica-0").stdout == "served\n"
    assert "attempts: 1, 2" in run("logs", "runs/tiny", "--attempt", "3", code=2).stderr
    assert "replica-0" in run("logs", "runs/tiny", "--stage", "trian", code=2).stderr


def test_before_the_first_stage_the_batch_script_has_the_word(local):
    assert "nothing has been written yet" in run("logs", "runs/tiny", code=2).stderr
    (local.path / "slurm-41.out").write_text("refused\n")
    assert run("logs", "runs/tiny").stdout == "refused\n"
    log(local, 1, "prepare", "")
    assert run("logs", "runs/tiny", "--stage", "job").stdout == "refused\n"


def test_a_job_s_own_output_is_found_where_the_job_wrote_it(slurm, local, workplace):
    printed = workplace / "slurm-77.out"
    printed.write_text("what the batch script printed\n")
    record = {"job_id": "77", "submitted": "2026-11-30T17:00:00+00:00", "output": str(printed)}
    local.job.write_text(json.dumps(record))
    AttemptOutcome(2, "the nodes cannot run this together:\n  a2: 1 GPUs, 2 planned", 0).write(local.new_attempt())
    told = run("logs", "runs/tiny")
    assert told.stdout == "what the batch script printed\n"
    assert "failed: the nodes cannot run this together: a2: 1 GPUs, 2 planned" in told.stderr
    assert (status()["state"], status()["job_id"]) == ("failed", "77")


@pytest.mark.parametrize(("code", "state"), [(75, "stopped"), (1, "failed"), (2, "failed")])
def test_exit_75_is_no_failure(slurm, local, code, state):
    AttemptOutcome(code, "why", 3).write(local.new_attempt())
    slurm.queue(f"41|FAILED|NonZeroExitCode|0:00|node1|{local.path}")
    assert status()["state"] == state


def test_a_run_that_ended_well_has_no_reason(slurm, workplace):
    run("render", "tiny.yaml", "--output", "runs/tiny", "--set", "evaluation.enabled=false")
    (workplace / "runs" / "tiny" / "adapter").mkdir()
    slurm.queue(f"41|PREEMPTED|PREEMPTED|0:00|node1|{workplace}/runs/tiny")
    assert (status()["state"], status()["reason"]) == ("finished", None)


def test_following_goes_from_stage_to_stage_and_ends_with_the_run(local):
    said = iter(["1", "2", None, "3", None])
    alive = threading.Event()
    alive.set()

    def meanwhile(_seconds: float) -> None:
        """What happens while the reader waits."""
        match next(said):
            case "1":
                log(local, 1, "prepare", "prepared\n")
            case "2":
                with open(log(local, 1, "train", "")) as _:
                    pass
                (local.logs / "attempt-1" / "prepare.log").open("a").write("more\n")
            case "3":
                (local.logs / "attempt-1" / "train.log").open("a").write("step 1\n")
                alive.clear()

    followed = logs.follow(local, logs.LogFilter(), alive.is_set, meanwhile, ask_every=0.0)
    assert [(path.stem, piece) for path, piece in followed] == [
        ("prepare", b"prepared\n"),
        ("prepare", b"more\n"),
        ("train", b"step 1\n"),
    ]


def test_following_ends_soon_after_an_attempt_has_said_how_it_ended(local):
    log(local, 1, "train", "all\n")
    alive = threading.Event()
    alive.set()

    def meanwhile(seconds: float) -> None:
        if alive.is_set():
            AttemptOutcome(0, "done", 4).write(local.logs / "attempt-1")
        alive.clear()
        time.sleep(seconds)

    followed = logs.follow(local, logs.LogFilter(), alive.is_set, meanwhile, ask_every=3600.0)
    assert [piece for _, piece in followed] == [b"all\n"]


def test_following_a_run_that_has_ended_prints_it_and_returns(slurm, local):
    log(local, 1, "train", "all\n")
    followed = run("logs", "runs/tiny", "--follow")
    assert followed.stdout == "all\n"
    assert followed.stderr.endswith("runs/tiny: stopped\n")


def test_a_stage_that_an_earlier_attempt_ran_is_shown(local):
    log(local, 1, "prepare", "prepared here\n")
    log(local, 1, "train", "half of it\n")
    log(local, 2, "train", "the rest\n")
    assert run("logs", "runs/tiny", "--stage", "prepare").stdout == "prepared here\n"
    assert run("logs", "runs/tiny", "--stage", "train").stdout == "the rest\n"
    assert (
        "nothing has been written yet"
        in run("logs", "runs/tiny", "--stage", "prepare", "--attempt", "2", code=2).stderr
    )


def test_status_and_report_have_one_word_for_a_state(local):
    train(local, 10, 20)
    log(local, 1, "train", "")
    for word, mark in (("stopped", None), ("failed", local.failure)):
        if mark:
            mark.write_text("{}")
        assert status()["state"] == word
        assert f"tiny  {word}" in run("report", "runs/tiny").stdout
    with local.locked():
        assert status()["state"] == "running"
        assert "tiny  running" in run("report", "runs/tiny").stdout


def test_the_table_of_states_fits_a_terminal(local, monkeypatch):
    from grpo_dist.cli import options

    train(local, 10, 20)
    monkeypatch.setattr(options, "WIDTH_OF_A_FILE", 80)
    printed = run("status").stdout
    assert max(map(len, printed.splitlines())) <= 80
    assert all(figure in printed for figure in ("2/30", "200"))
