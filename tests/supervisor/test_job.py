"""What a batch script asks Python: to open an attempt on what was allocated, and to close it. Slurm is a stub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess

import pytest
import yaml

from grpo_dist.errors import RunDirectoryError
from grpo_dist.launch.open import check_as_started
from grpo_dist.run.checkpoints import seal
from grpo_dist.run.control import DONE, FAILED, REFUSED, TRY_AGAIN, AttemptOutcome
from grpo_dist.run.directory import RunDirectory
from grpo_dist.slurm.client import KILL_WAIT_SECONDS, kill_wait, memory_of, parse_fields
from grpo_dist.slurm.job import main
from grpo_dist.slurm.requeue import options_of
from grpo_dist.slurm.status import status_of

SLURM = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "{calls}"
case "$(basename "$0") $1 ${{3:-}}" in
  "scontrol --oneliner config") echo "KillWait                = ${{KILL_WAIT:-45}} sec" ;;
  "scontrol --oneliner job")
    state=${{STATE:-RUNNING}}
    [ "$4" = "$SLURM_JOB_ID" ] || state=${{OTHER_STATE:-$state}}
    echo "JobId=$4 JobState=$state Restarts=${{RESTARTS:-0}} TimeLimit=${{LIMIT:-1-00:00:00}}" \\
      "SubmitTime=2026-11-30T17:00:00 PreemptTime=${{PREEMPTED:-None}} Reason=${{REASON:-None}} Partition=gpu long" \\
      "NumNodes=2 WorkDir=$PWD StdOut=$PWD/it's out Power= " ;;
  "scontrol requeue "*) [ -z "${{NO_REQUEUE:-}}" ] || {{ echo "presently disabled" >&2; exit 1; }} ;;
  sbatch*)
    [ -z "${{NO_SBATCH:-}}" ] || {{ echo "Access denied" >&2; exit 1; }}
    env | grep -c "^SLURM_JOB_ID" >> "{calls}" || true
    echo "Submitted batch job 8" ;;
esac
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Inside a job of two nodes; returns what Slurm's programs were asked."""
    record, programs = tmp_path / "calls", tmp_path / "bin"
    programs.mkdir()
    for name in ("scontrol", "sbatch"):
        (programs / name).write_text(SLURM.format(calls=record))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_SUBMIT_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return lambda: record.read_text().splitlines() if record.exists() else []


@pytest.fixture
def opened(calls, tmp_path, capsys):
    """An attempt of a run that was just made."""
    config = tmp_path / "my.yaml"
    embedded = {"name_or_path": "embedded"}
    grpo = {"prompts_per_step": 4, "num_generations": 4, "max_steps": 4}
    model, cluster = {**embedded, "dtype": "float32"}, {"gpus_per_node": 0}
    config.write_text(yaml.safe_dump({"model": model, "data": embedded, "grpo": grpo, "cluster": cluster}))
    assert main(["open", str(config)]) == DONE
    run, attempt = capsys.readouterr().out.splitlines()
    return RunDirectory(tmp_path / "runs" / "my-7"), attempt, run


def close(run: RunDirectory, attempt: str, outcome: int | None, code: int = 0) -> int:
    if outcome is not None:
        AttemptOutcome(outcome, "why", 0).write(run.logs / attempt)
    return main(["close", str(run.path), str(run.logs / attempt), str(code)])


def test_the_run_is_planned_for_what_was_allocated(opened):
    run, attempt, printed = opened
    assert printed == str(run.path)
    assert attempt == str(run.logs / "attempt-1")
    assert '"nodes": 2' in run.plan.read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "grpo.prompts_per_step=7", "--set", "grpo.num_generations=3"], "do not divide over 2 processes"),
        (["--set", "cluster.nodes=3"], "cluster.nodes: 3 stated, 2 allocated"),
        (["--set", "cluster.gpus_per_node=2"], "the job has no GPUs"),
        (["--set", "rewards.functions=[nonsense]"], "there is no reward 'nonsense'"),
    ],
)
def test_what_cannot_run_is_refused_and_leaves_nothing(opened, tmp_path, capsys, arguments, told):
    assert main(["open", str(tmp_path / "my.yaml"), *arguments, "--output", "other"]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_time_limit_that_leaves_no_time_is_refused(opened, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIMIT", "00:05:00")
    assert main(["open", str(tmp_path / "my.yaml"), "--output", "other"]) == 2
    assert "and one step: no step is ever done" in capsys.readouterr().err


def test_gpus_that_nobody_uses_are_told(opened, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "8")
    assert main(["open", str(tmp_path / "my.yaml"), "--output", "other"]) == DONE
    assert "warning: the job has 8 GPUs per node, and the configuration trains on CPUs" in capsys.readouterr().err


def test_a_run_that_is_gone_is_not_made_anew(opened, monkeypatch, capsys):
    run = opened[0]
    shutil.rmtree(run.path)
    assert close(run, "attempt-1", None, code=1) == REFUSED
    assert last_line(capsys) == f"{run.path}: the run directory is gone; put it back, then submit again"
    monkeypatch.setenv("GRPO_DIST_CHAINED", "1")
    assert main(["open", "my.yaml", "--output", str(run.path)]) == REFUSED
    assert "the run this job continues is gone" in capsys.readouterr().err
    assert not run.path.exists()


def test_an_attempt_that_may_be_tried_again_goes_back_into_the_queue(opened, calls):
    run = opened[0]
    assert close(run, "attempt-1", TRY_AGAIN) == TRY_AGAIN
    assert calls()[-1] == "scontrol requeue 7"


@pytest.mark.parametrize("outcome", [DONE, FAILED])
def test_what_is_done_or_would_fail_again_does_not(opened, calls, outcome):
    before = calls()
    assert close(opened[0], "attempt-1", outcome) == outcome
    assert calls() == before


def test_a_head_that_ended_without_a_word_is_tried_again(opened, calls, capsys):
    assert close(opened[0], "attempt-1", None, code=137) == TRY_AGAIN
    assert "scontrol requeue 7" in calls()
    assert "ended without a message" in capsys.readouterr().err


def test_a_head_that_cannot_start_while_the_job_ends_is_no_failure(opened, calls, monkeypatch, capsys):
    run = opened[0]
    run.stop_request.write_text("terminated\n")
    monkeypatch.setenv("STATE", "COMPLETING")
    assert close(run, "attempt-1", None, code=1) == TRY_AGAIN
    assert not any("requeue" in call for call in calls())
    assert not (run.logs / "attempt-1" / "failure.json").exists()
    assert "ended by Slurm" in capsys.readouterr().err
    run.stop_request.write_text("limit\n")
    monkeypatch.setenv("STATE", "RUNNING")
    assert close(run, "attempt-1", None, code=1) == TRY_AGAIN
    assert calls()[-1] == "scontrol requeue 7"


def last_line(capsys) -> str:
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("slurm", "told"),
    [
        ({"STATE": "CANCELLED"}, "Slurm has ended job 7, and nothing runs it again; continue it with: sbatch --chdir="),
        ({"STATE": "COMPLETING"}, "Slurm has ended job 7, and nothing runs it again; continue it with: sbatch"),
        ({"STATE": "PENDING"}, "Slurm has put job 7 back in the queue"),
        ({"STATE": "COMPLETING", "RESTARTS": "1"}, "Slurm has put job 7 back in the queue"),
        ({"STATE": "COMPLETING", "RESTARTS": "1", "REASON": "TimeLimit"}, "Slurm has put job 7 back in the queue"),
    ],
)
def test_a_job_slurm_has_ended_is_left_to_slurm(opened, calls, monkeypatch, capsys, slurm, told):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert close(opened[0], "attempt-1", TRY_AGAIN) == TRY_AGAIN
    assert not any("requeue" in call or "sbatch" in call for call in calls())
    assert last_line(capsys).startswith(told)


@pytest.mark.parametrize(
    "slurm",
    [{"STATE": "COMPLETING", "REASON": "TimeLimit"}, {"STATE": "COMPLETING", "PREEMPTED": "2026-11-30T21:20:41"}],
)
def test_after_its_limit_or_a_preemption_that_cancels_a_job_is_followed(opened, calls, monkeypatch, capsys, slurm):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert close(opened[0], "attempt-1", TRY_AGAIN) == TRY_AGAIN
    assert any(call.startswith("sbatch") for call in calls())
    assert not any("requeue" in call for call in calls())
    assert last_line(capsys) == "Submitted batch job 8"
    assert json.loads(opened[0].job.read_text())["job_id"] == "8"
    monkeypatch.setenv("NO_SBATCH", "1")
    close(opened[0], "attempt-1", TRY_AGAIN)
    assert last_line(capsys).startswith("continue it with: sbatch")


def test_of_a_job_that_is_ended_while_slurm_is_silent_nothing_is_promised(opened, monkeypatch, capsys):
    opened[0].stop_request.write_text("terminated\n")
    monkeypatch.setenv("PATH", "/nowhere")
    close(opened[0], "attempt-1", TRY_AGAIN)
    assert "does not say whether it runs it again; if not, continue it with: sbatch" in last_line(capsys)


def test_only_a_job_that_slurm_has_ended_is_about_to_be_killed(calls, monkeypatch):
    assert kill_wait("7") is None
    monkeypatch.setenv("STATE", "COMPLETING")
    assert kill_wait("7") == 45.0
    monkeypatch.setenv("KILL_WAIT", "unknown")
    assert kill_wait("7") == KILL_WAIT_SECONDS
    monkeypatch.setenv("PATH", "/nowhere")
    assert kill_wait("7") is None


def test_a_job_is_not_put_back_for_ever(opened, calls, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "20")
    assert close(opened[0], "attempt-1", TRY_AGAIN) == TRY_AGAIN
    assert "cluster.max_requeues is 20" in capsys.readouterr().err
    assert not any("requeue" in call for call in calls())


def test_the_job_is_recorded_when_its_run_is_opened(opened, tmp_path):
    record = json.loads(opened[0].job.read_text())
    assert (record["job_id"], record["directory"]) == ("7", str(tmp_path))
    assert record["output"] == f"{tmp_path}/it's out"
    assert record["slurm_submitted"].endswith("+00:00")


def test_a_restart_takes_the_run_s_own_configuration(opened, tmp_path, monkeypatch, capsys):
    run, source = opened[0], tmp_path / "my.yaml"
    started = run.started.read_text()
    source.write_text(source.read_text().replace("max_steps: 4", "max_steps: 5"))
    again = ["open", str(source), "--set", "grpo.seed=8", "--output", str(run.path)]
    assert main(again) == 2, "another submission takes the file as it is"
    assert "grpo.max_steps: 4 in the run, 5 now" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    source.unlink()
    assert main(again) == DONE
    assert run.started.read_text() == run.config.read_text() == started
    digest = hashlib.sha256(started.encode()).hexdigest()
    assert run.started_digest.read_text() == f"{digest}  started.yaml\n"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (("seed: 3407", "seed: 1"), "grpo.seed: 3407 in the run, 1 now"),
        (("beta: 0.0", "beta: 0.04"), "grpo.beta: 0.0 in the run, 0.04 now"),
    ],
)
def test_an_edited_configuration_of_the_run_is_refused(opened, monkeypatch, capsys, edit, told):
    run = opened[0]
    assert edit[0] in run.config.read_text()
    run.config.write_text(run.config.read_text().replace(*edit))
    with pytest.raises(RunDirectoryError, match="was edited after the run was started"):
        check_as_started(run)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main(["open", "my.yaml", "--output", str(run.path)]) == 2
    assert told in capsys.readouterr().err
    assert edit[0] in run.started.read_text()
    assert told in json.loads((run.logs / "attempt-2" / "outcome.json").read_text())["why"]
    assert (status_of(run.path, []).state, told in status_of(run.path, []).reason) == ("failed", True)


@pytest.mark.parametrize(("other", "code"), [("RUNNING", 2), ("COMPLETED", 0), ("FAILED", 0), (None, 2)])
def test_a_run_another_job_has_just_opened_is_refused_at_once(opened, tmp_path, monkeypatch, capsys, other, code):
    """Its first node does not hold the lock yet."""
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    if other:
        monkeypatch.setenv("OTHER_STATE", other)
    else:
        monkeypatch.setenv("PATH", "/nowhere")  # Slurm does not answer: it has just been opened
    assert main(["open", str(tmp_path / "my.yaml"), "--output", str(opened[0].path)]) == code
    assert ("this run is still going on (job 7)" in capsys.readouterr().err) == (code == 2)
    assert len(opened[0].attempts()) == (1 if code else 2)


def test_a_run_whose_attempt_has_ended_is_free(opened, tmp_path, monkeypatch):
    AttemptOutcome(FAILED, "why", 0).write(opened[0].logs / "attempt-1")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert main(["open", str(tmp_path / "my.yaml"), "--output", str(opened[0].path)]) == DONE


@pytest.fixture
def attempt(opened, tmp_path, monkeypatch):
    """Opens the next attempt of the run, as often as Slurm restarts the job, and closes it: both exit codes."""
    restarts = iter(range(99))

    def next_attempt(outcome: int | None, code: int = 0, why: str = "why", step: int = 0) -> tuple[int, int | None]:
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(number := next(restarts)))
        run = opened[0]
        begun = main(["open", str(tmp_path / "my.yaml"), "--output", str(run.path)]) if number else DONE
        if begun != DONE:
            return begun, None
        where = run.logs / f"attempt-{number + 1}"
        if step:
            saved = run.checkpoints / f"checkpoint-{step}"
            saved.mkdir(parents=True)
            seal(saved)
        if outcome is not None:
            AttemptOutcome(outcome, why, step).write(where)
        return begun, main(["close", str(run.path), str(where), str(code)])

    return next_attempt


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        ({"outcome": TRY_AGAIN, "why": "stopped before train: the time limit is near"}, "cluster.time"),
        ({"outcome": None, "code": 137}, "srun's exit code: 137"),
        ({"outcome": TRY_AGAIN, "why": "ended by Slurm: node on a2"}, "ended by Slurm: node on a2"),
    ],
)
def test_three_attempts_without_a_checkpoint_end_the_run(opened, attempt, calls, ended, told, capsys):
    assert [attempt(**ended) for _ in range(3)] == [(DONE, TRY_AGAIN), (DONE, TRY_AGAIN), (DONE, FAILED)]
    assert "3 attempts in a row ended without a newer checkpoint" in capsys.readouterr().err
    assert sum("requeue" in call for call in calls()) == 2
    assert told in opened[0].failure.read_text()


def test_an_attempt_that_saved_more_starts_the_count_anew(attempt):
    assert [attempt(TRY_AGAIN, step=step)[1] for step in (0, 0, 4, 0, 0, 0)] == [*5 * [TRY_AGAIN], FAILED]


def test_restarts_by_slurm_itself_count_as_well(opened, attempt, monkeypatch, capsys):
    monkeypatch.setenv("STATE", "COMPLETING")
    assert [attempt(None, code=143) for _ in range(2)] == 2 * [(DONE, TRY_AGAIN)]
    assert attempt(None, code=143) == (DONE, FAILED)
    assert attempt(None) == (FAILED, None), "Slurm started it again"
    assert opened[0].failure.exists()
    assert "not again: 3 attempts" in capsys.readouterr().err


MEMORY = "ask for more: --set 'cluster.sbatch=[--mem=0]'"


@pytest.mark.parametrize(
    ("printed", "cause", "hint"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", "the node is out of memory", MEMORY),
        ("slurmstepd-a1: error: StepId=7.0 exceeded memory limit (5632 > 1024), being killed", "the node is", MEMORY),
        ("srun: error: a2: task 1: Out Of Memory", "the node is out of memory", MEMORY),
        (
            "srun: error: Unable to create step for job 7: Invalid generic resource (gres) specification",
            "srun refuses: error: Unable to create step for job 7: Invalid generic resource",
            "cluster.sbatch",
        ),
        ("srun: error: Unable to create step for job 7: Job/step already completing or completed", None, None),
        ("a reward printed: oom_kill", None, None),
        ("", None, None),
    ],
)
def test_what_slurm_itself_says_of_an_attempt_decides(opened, calls, monkeypatch, printed, cause, hint, tmp_path):
    run, attempt, _ = opened
    output = tmp_path / "slurm-7.out"
    earlier = "srun: error: a2: task 1: Out Of Memory"
    output.write_text(f"{earlier}\nrun directory: x\nlogs: {attempt}\n{printed}\n")
    monkeypatch.setattr("grpo_dist.slurm.job._own_output", lambda: str(output))
    assert close(run, "attempt-1", None, code=137) == (FAILED if cause else TRY_AGAIN)
    assert any("requeue" in call for call in calls()) == (cause is None)
    told = json.loads(run.failure.read_text())
    assert (told["cause"] or "").startswith(cause or "") and bool(told["cause"]) == bool(cause)
    assert (hint or "") in (told["hint"] or "")


@pytest.mark.parametrize(
    ("place", "counters"),
    [
        ("memory/slurm/uid_5/job_7", {"memory.limit_in_bytes": "2048", "step_0/memory.oom_control": "oom_kill 2"}),
        ("system.slice/slurmstepd.scope/job_7", {"memory.max": "2048", "memory.events": "max 9\noom 2\noom_kill 2"}),
    ],
)
def test_the_kernel_s_counters_of_a_job_are_read(tmp_path, place, counters):
    for name, text in counters.items():
        path = tmp_path / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert memory_of("7", tmp_path) == (2, 2048)
    assert memory_of("77", tmp_path) == (0, None)


def test_a_new_submission_has_three_attempts_again(opened, attempt, tmp_path, monkeypatch):
    assert [attempt(TRY_AGAIN)[1] for _ in range(3)][-1] == FAILED
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert main(["open", str(tmp_path / "my.yaml"), "--output", str(opened[0].path)]) == DONE
    assert close(opened[0], "attempt-4", TRY_AGAIN) == TRY_AGAIN


@pytest.mark.parametrize("name", ["SLURM_RESTART_COUNT", "GRPO_DIST_CHAINED"])
def test_an_odd_variable_is_one_clear_line(opened, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setenv(name, "often")
    assert main(["open", str(tmp_path / "my.yaml"), "--output", "other"]) == FAILED
    assert f"{name}='often' in the environment is no number" in capsys.readouterr().err


def test_where_requeue_is_forbidden_a_job_is_chained(opened, calls, monkeypatch, capsys):
    run = opened[0]
    monkeypatch.setenv("NO_REQUEUE", "1")
    assert close(run, "attempt-1", TRY_AGAIN) == TRY_AGAIN
    sent = next(call for call in calls() if call.startswith("sbatch"))
    assert sent == chained(run)
    assert calls()[calls().index(sent) + 1] == "0", "sbatch would take the job's own variables for options"
    assert last_line(capsys) == "Submitted batch job 8"


def chained(run: RunDirectory) -> str:
    home = run.path.parents[1]
    options = f"--dependency=afterany:7 --chdir={home} --partition=gpu long --time=1-00:00:00 --nodes=2"
    script = run.logs / "attempt-1" / "next.sh"
    return f"sbatch {options} --output={home}/it's out {script} {run.config} --output {run.path}"


def test_a_chained_job_has_the_user_s_own_script_and_continues_the_run(opened, tmp_path, monkeypatch, capsys):
    """What sbatch would add to the same option of the command line, or take for this job, is taken out."""
    run = opened[0]
    header = (
        "#!/bin/bash\n#SBATCH --gres=gpu:a100:8 --comment=x\n#SBATCH -G 4\n#SBATCH --array=1-3 --wait-all-nodes=1\n"
    )
    body = "export MINE='a b'\n#SBATCH --mem=5\ncat <<X\n#SBATCH --gres=gpu:1\nX\n"
    (run.logs / "attempt-1" / "submitted.sh").write_text(header + body)
    monkeypatch.setenv("NO_REQUEUE", "1")
    close(run, "attempt-1", TRY_AGAIN)
    script = (run.logs / "attempt-1" / "next.sh").read_text()
    assert script == "#!/bin/bash\n#SBATCH --comment=x\n#SBATCH\n#SBATCH --wait-all-nodes=1\n" + body
    for name, value in {"SLURM_JOB_ID": "8", "GRPO_DIST_CHAINED": "1", "GRPO_DIST_RUN": str(run.path)}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "my.yaml").unlink()
    capsys.readouterr()
    assert main(["open", "my.yaml"]) == DONE, "a script that passes no arguments on"
    assert capsys.readouterr().out.splitlines()[0] == str(run.path)


@pytest.mark.parametrize(
    ("shown", "options"),
    [
        (
            "JobId=1 JobName=a b=c UserId=root(0) Nice=5 Account=(null) QOS=high Requeue=0 Restarts=0 "
            "TimeLimit=00:20:00 TimeMin=N/A Deadline=N/A Partition=gpu long ReqNodeList=(null) ExcNodeList=node[3-4] "
            "NumNodes=1 NumCPUs=1 CPUs/Task=16 CoreSpec=* JOB_GRES=gpu:1 MinMemoryNode=62.50G MinTmpDiskNode=0 "
            "Features=a100&ib Reservation=r OverSubscribe=OK Licenses=(null) Network=(null) Command=/x/s.sh a b c "
            "WorkDir=/x Comment=my Cost=x, 'q'  StdErr=/x/1/slurm-1-a1-11%.out StdIn=/dev/null "
            "StdOut=/x/1/slurm-1-a1-11%.out Power= TresPerNode=gres:gpu:a100:2",
            "--job-name=a b=c|--partition=gpu long|--qos=high|--reservation=r|--time=00:20:00|--nodes=1|"
            "--exclude=node[3-4]|--constraint=a100&ib|--cpus-per-task=16|--mem=62.50G|--nice=5|"
            "--comment=my Cost=x, 'q'|--gres=gpu:a100:2|--no-requeue|--output=/x/1/slurm-%j-a1-11%%.out",
        ),
        (
            "JobId=30 HetJobId=30 JobName=q HetJobIdSet=30-31 UserId=root(0) Nice=0 Requeue=1 TimeLimit=UNLIMITED "
            "CPUs/Task=1 MinMemoryCPU=10M OverSubscribe=NO StdErr=/x/e StdOut=/x/o CpusPerTres=gres/gpu:4 "
            "TresPerJob=gres/gpu:h100=8",
            "--job-name=q|--time=UNLIMITED|--mem-per-cpu=10M|--gpus=h100:8|--cpus-per-gpu=4|--exclusive|"
            "--output=/x/o|--error=/x/e",
        ),
        (
            "JobId=4 ArrayJobId=3 ArrayTaskId=1 JobName=q UserId=root(0) MinMemoryNode=0 MemPerTres=gres:gpu:100 "
            "TresPerTask=cpu=8,gres/gpu=1 MinTmpDiskNode=0 StdErr=/x/e StdOut=/x/o",
            "--job-name=q|--gpus-per-task=1|--mem-per-gpu=100",
        ),
    ],
)
def test_a_job_like_this_one_is_asked_for_by_what_slurm_shows(shown, options):
    assert "|".join(options_of(parse_fields(shown))) == options


def test_in_a_container_slurm_is_not_asked_but_told_what_to_ask(opened, calls, monkeypatch):
    run, before = opened[0], calls()
    script = run.logs / "attempt-1" / "again.sh"
    monkeypatch.setenv("GRPO_DIST_JOB", "JobId=7 JobState=CANCELLED")
    close(run, "attempt-1", TRY_AGAIN)
    assert not script.exists()
    here = f"StdOut={run.path.parents[1]}/it's out"
    monkeypatch.setenv("GRPO_DIST_JOB", f"JobId=7 JobState=RUNNING TimeLimit=1-00:00:00 NumNodes=2 {here}")
    assert close(run, "attempt-1", TRY_AGAIN) == TRY_AGAIN
    assert calls() == before
    subprocess.run(["bash", script], check=True, timeout=30)
    assert calls() == [*before, "scontrol requeue 7"]
    monkeypatch.setenv("NO_REQUEUE", "1")
    subprocess.run(["bash", script], check=True, timeout=30)
    assert calls()[-2:] == [chained(run), "0"]
