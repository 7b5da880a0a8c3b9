"""submit and cancel, with stand-ins for Slurm's programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from grpo_dist.cli import main
from grpo_dist.config import load_config
from grpo_dist.render import files
from grpo_dist.render.slurm import job_script as slurm_script
from grpo_dist.run.directory import RunDirectory

pytestmark = pytest.mark.usefixtures("workplace")


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def everything(path: Path) -> dict[str, bytes]:
    """Every file but locks, by its path."""
    return {str(file): file.read_bytes() for file in path.rglob("[!.]*") if file.is_file()}


def test_a_run_is_made_queued_and_remembered(slurm, workplace):
    result = run("submit", "tiny.yaml", "--nodes", "2", "--set", "grpo.seed=3")
    assert result.stdout == "41\n"
    there = workplace / "runs" / "tiny"
    assert slurm.submissions() == [["--parsable", f"--chdir={there}", str(there / "job.sh")]]
    assert json.loads((there / "job.json").read_text())["job_id"] == "41"
    config = load_config(there / "config.yaml")
    assert (config.cluster.nodes, config.grpo.seed) == (2, 3)
    for told in ("runs/tiny", "slurm-41.out", "grpo-dist logs runs/tiny --follow"):
        assert told in result.stderr


def test_dry_run_prints_the_script_and_touches_nothing(slurm, workplace):
    script = run("submit", "tiny.yaml", "--set", "cluster.partition=gpu long", "--dry-run").stdout
    assert script.startswith("#!") and "#SBATCH '--partition=gpu long'" in script
    assert slurm.submissions() == []
    assert not (workplace / "runs").exists()


def test_what_this_machine_lacks_is_told(slurm, workplace):
    absent, present = workplace / "absent.jsonl", workplace / "present.jsonl"
    present.touch()
    for path, told in ((absent, f"warning: {absent} is not on this machine"), (present, "")):
        stderr = run("submit", "tiny.yaml", "--set", f"data.name_or_path={path}", "--dry-run").stderr
        assert told in stderr and ("is not on this machine" in stderr) == bool(told)


def test_test_only_asks_slurm_with_the_same_script_and_touches_nothing(slurm, workplace):
    assert "to start at noon" in run("submit", "tiny.yaml", "--test-only").stdout
    assert (slurm.box / "script").read_text() == run("submit", "tiny.yaml", "--dry-run").stdout
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "sbatch: error: invalid partition specified: gpu lng\nsbatch: error: Invalid partition name specified",
            "--set cluster.partition='gpu long'",
        ),
        ("sbatch: error: Invalid account or account/partition combination specified", "grpo-dist/site.yaml"),
        ("sbatch: error: Requested time limit is invalid (missing or exceeds some limit)", "cluster.time"),
        ("sbatch: error: Unable to contact slurm controller (connect failure)", "scontrol ping"),
    ],
)
def test_a_refused_job_leaves_nothing_behind(slurm, workplace, words, told):
    slurm.refuse(words)
    before = everything(workplace)
    result = run("submit", "tiny.yaml", code=1)
    assert words.splitlines()[-1] in result.stderr and told in result.stderr
    assert everything(workplace) == before
    assert not (workplace / "runs").exists()


def test_what_cannot_run_does_not_reach_slurm(slurm, workplace):
    assert "do not divide" in run("submit", "tiny.yaml", "--nodes", "3", code=2).stderr
    assert (
        "there is no reward 'nonesuch'"
        in run("submit", "tiny.yaml", "--set", "rewards.functions=[nonesuch]", code=2).stderr
    )
    assert slurm.submissions() == []
    assert not (workplace / "runs").exists()


def test_without_slurm_it_says_so(workplace, monkeypatch):
    monkeypatch.setenv("PATH", str(workplace))
    told = run("submit", "tiny.yaml", code=1).stderr
    assert "sbatch: cannot be started here" in told and "grpo-dist run CONFIG" in told
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_a_run_that_is_queued_is_not_submitted_again(slurm, options):
    run("submit", "tiny.yaml")
    told = run("submit", "tiny.yaml", *options, code=2).stderr
    assert "submitted already, as job 41 (PENDING)" in told and "grpo-dist cancel" in told
    assert len(slurm.submissions()) == 1


def test_a_job_that_was_submitted_by_hand_counts_too(slurm, workplace):
    run("submit", "tiny.yaml")
    slurm.queue(f"77|RUNNING|None|9:59|node1|{workplace / 'runs' / 'tiny'}")
    assert "as job 77 (RUNNING)" in run("submit", "tiny.yaml", "--resume", code=2).stderr


def test_a_run_whose_job_has_ended_is_continued_with_resume_alone(slurm, workplace, monkeypatch):
    run("submit", "tiny.yaml")
    slurm.queue(f"41|TIMEOUT|TimeLimit|0:00|node1|{workplace / 'runs' / 'tiny'}")
    assert "--resume" in run("submit", "tiny.yaml", code=2).stderr
    rendered = []
    monkeypatch.setattr(files, "job_script", lambda *given: rendered.append(given) or slurm_script(*given))
    assert run("submit", "tiny.yaml", "--resume", "--set", "cluster.time=2:00:00").stdout == "42\n"
    assert len(rendered) == 1
    assert "--time=2:00:00" in (workplace / "runs" / "tiny" / "job.sh").read_text()


def test_another_configuration_is_refused_with_the_difference(slurm, workplace):
    run("submit", "tiny.yaml")
    slurm.queue()
    told = run("submit", "tiny.yaml", "--resume", "--set", "grpo.learning_rate=1", code=2).stderr
    assert "grpo.learning_rate" in told
    assert len(slurm.submissions()) == 1


def test_a_refused_resumption_changes_nothing(slurm, workplace):
    run("submit", "tiny.yaml")
    slurm.queue()
    before = everything(workplace)
    slurm.refuse("sbatch: error: no")
    run("submit", "tiny.yaml", "--resume", "--set", "cluster.time=2:00:00", code=1)
    assert everything(workplace) == before


def test_a_run_that_has_ended_is_not_submitted(slurm, workplace):
    run("submit", "tiny.yaml")
    slurm.queue()
    ended = RunDirectory(workplace / "runs" / "tiny")
    ended.adapter.mkdir()
    ended.report.touch()
    assert "has ended" in run("submit", "tiny.yaml", "--resume", code=2).stderr


def test_settings_of_the_site_hold_where_the_configuration_states_none(slurm, workplace, monkeypatch):
    Path("site.yaml").write_text("partition: gpu long\naccount: us\nmodules: [cuda/12.4]\nactivate: [. ready]\n")
    monkeypatch.setenv("GRPO_DIST_SITE", "site.yaml")
    script = run("submit", "tiny.yaml", "--set", "cluster.account=them", "--dry-run").stdout
    lines = script.splitlines()
    assert "#SBATCH '--partition=gpu long'" in lines and "#SBATCH --account=them" in lines
    assert lines.index("module load cuda/12.4") + 1 == lines.index(". ready")


def test_an_allocation_it_is_called_in_does_not_reach_the_job(slurm, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CPU_BIND", "mask")
    monkeypatch.setenv("SQUEUE_STATES", "COMPLETED")
    sbatch = slurm.box / "bin" / "sbatch"
    sbatch.write_text(
        sbatch.read_text().replace("tasks=", 'echo "<$SLURM_CPU_BIND$SLURM_JOB_ID>" >"$BOX/env"; tasks=', 1)
    )
    run("submit", "tiny.yaml")
    assert (slurm.box / "env").read_text() == "<>\n"
    assert "as job 41" in run("submit", "tiny.yaml", code=2).stderr


def test_cancel_ends_the_job_of_the_run(slurm):
    run("submit", "tiny.yaml")
    run("submit", "tiny.yaml", "--output", "runs/other")
    assert run("cancel", "runs/tiny").stdout == "41\n"
    assert slurm.cancelled() == ["41"]
    assert "no job of it is queued or running" in run("cancel", "runs/tiny", code=2).stderr
    assert run("cancel", "runs/other").stdout == "42\n"


@pytest.mark.parametrize(
    ("queued", "ours"),
    [
        ("2026-11-30T17:00:00|0|box|{there}", True),
        ("2026-11-30T19:00:00|2|box|{there}", True),  # put back in the queue
        ("2027-01-07T09:00:00|0|box|{there}", False),  # Slurm's numbers began anew
        ("2026-11-30T17:00:00|0|other|{there}", False),
        ("2026-11-30T17:00:00|0|box|/somewhere/else", False),
    ],
)
def test_a_job_with_the_same_number_is_not_cancelled(slurm, workplace, queued, ours):
    run("submit", "tiny.yaml")
    record = RunDirectory(workplace / "runs" / "tiny").job
    stated = json.loads(record.read_text())
    record.write_text(json.dumps(stated | {"cluster": "box", "directory": str(workplace)}))
    slurm.queue(f"41|RUNNING|None|9:59|node1|{queued.format(there=workplace)}")
    run("cancel", "runs/tiny", code=0 if ours else 2)
    assert (slurm.box / "scancel").exists() == ours


def test_cancel_of_a_run_without_a_job_says_where_it_runs(slurm):
    run("submit", "tiny.yaml")
    slurm.queue()
    with RunDirectory(Path("runs/tiny")).locked():
        assert "Ctrl-C" in run("cancel", "runs/tiny", code=2).stderr


def test_a_container_is_in_the_script_or_refused(slurm, workplace):
    """Never left out in silence."""
    setting = "cluster.container={runtime: apptainer, image: /images/grpo.sif}"
    result = CliRunner().invoke(main, ["submit", "tiny.yaml", "--set", setting, "--dry-run"])
    assert "/images/grpo.sif" in result.stdout or "cluster.container" in result.stderr
    assert result.exit_code == (0 if "/images/grpo.sif" in result.stdout else 2)
