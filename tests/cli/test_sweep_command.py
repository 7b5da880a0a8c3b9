"""sweep, and the report on several runs, with stand-ins for Slurm's programs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from grpo_dist.cli import main
from grpo_dist.config import load_config
from grpo_dist.slurm.sweep import split_values

pytestmark = pytest.mark.usefixtures("workplace")

SIX = ("--set", "grpo.num_generations=4,8", "--set", "grpo.seed=1,2,3", "--set", "grpo.beta=0.1")


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def members(sweep: Path) -> list[Path]:
    return sorted(path for path in sweep.iterdir() if path.is_dir())


def test_the_product_of_the_values_is_one_array(slurm, workplace):
    result = run("sweep", "tiny.yaml", *SIX, "--throttle", "2")
    sweep = workplace / "runs" / "tiny-sweep"
    assert result.stdout == "41\n"
    call, comparison = slurm.submissions()
    assert call[:3] == ["--parsable", f"--chdir={sweep}", "--array=0-5%2"]
    assert comparison[2:] == [
        "--dependency=afterany:41",
        "--job-name=grpo-tiny-sweep-compare",
        str(sweep / "compare.sh"),
    ]
    assert "job 42 does it at the end: runs/tiny-sweep/report.html" in result.stderr
    runs = members(sweep)
    assert [path.name for path in runs][:2] == ["0-num_generations-4-seed-1", "1-num_generations-4-seed-2"]
    stated = [load_config(path / "config.yaml").grpo for path in runs]
    assert [(one.num_generations, one.seed) for one in stated] == [(n, s) for n in (4, 8) for s in (1, 2, 3)]
    assert {one.beta for one in stated} == {0.1}
    assert [json.loads((path / "job.json").read_text())["job_id"] for path in runs] == [f"41_{n}" for n in range(6)]


def test_each_task_runs_the_script_of_its_own_run_in_its_directory(slurm, workplace):
    run("sweep", "tiny.yaml", *SIX)
    sweep = workplace / "runs" / "tiny-sweep"
    third = members(sweep)[2]
    (third / "job.sh").write_text('pwd; echo "$SLURM_ARRAY_TASK_ID"')
    env = {"PATH": os.environ["PATH"], "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "2"}
    subprocess.run(["bash", sweep / "array.sh"], cwd=sweep, env=env, check=True, timeout=30)
    assert (third / "slurm-41_2.out").read_text() == f"{third}\n2\n"


def test_the_array_asks_for_what_its_runs_ask_for(slurm):
    one = run("submit", "tiny.yaml", "--set", "cluster.partition=gpu long", "--dry-run").stdout.splitlines()
    array = run("sweep", "tiny.yaml", *SIX, "--set", "cluster.partition=gpu long", "--dry-run").stdout.splitlines()
    asked = {line for line in one if line.startswith("#SBATCH")}
    assert {line for line in array if line.startswith("#SBATCH")} == {
        line for line in asked if "--job-name" not in line and "--output" not in line
    }
    assert "#SBATCH '--partition=gpu long'" in array


def test_dry_run_touches_nothing(slurm, workplace):
    before = sorted(workplace.rglob("*"))
    result = run("sweep", "tiny.yaml", *SIX, "--dry-run")
    assert "grpo.num_generations=8 grpo.seed=3" in result.stderr
    assert slurm.submissions() == [] and sorted(workplace.rglob("*")) == before


def test_what_all_runs_lack_is_told_once(slurm, workplace):
    absent = workplace / "absent.jsonl"
    stderr = run("sweep", "tiny.yaml", *SIX, "--set", f"data.name_or_path={absent}", "--dry-run").stderr
    assert stderr.count(f"warning: {absent} is not on this machine") == 1


def test_nothing_is_submitted_when_one_run_cannot_run(slurm, workplace):
    told = run(
        "sweep",
        "tiny.yaml",
        "--nodes",
        "2",
        "--set",
        "grpo.num_generations=4,5,8",
        "--set",
        "grpo.prompts_per_step=4,5",
        code=2,
    ).stderr
    assert "1 of 6 runs of this sweep cannot run" in told
    assert "grpo.num_generations=5 grpo.prompts_per_step=5: " in told
    assert slurm.submissions() == [] and not (workplace / "runs").exists()


def test_runs_of_different_sizes_are_no_array(slurm, workplace):
    told = run("sweep", "tiny.yaml", "--set", "cluster.nodes=1,2", code=2).stderr
    assert "--nodes=1, --nodes=2" in told and "one by one" in told
    assert not (workplace / "runs").exists()


def test_a_refused_array_leaves_nothing_behind(slurm, workplace):
    slurm.refuse("sbatch: error: Invalid job array specification")
    assert "Invalid job array" in run("sweep", "tiny.yaml", *SIX, code=1).stderr
    assert not (workplace / "runs").exists()


def test_a_sweep_is_not_submitted_twice(slurm):
    run("sweep", "tiny.yaml", *SIX)
    assert "submitted as job 41" in run("sweep", "tiny.yaml", *SIX, code=2).stderr
    assert len(slurm.submissions()) == 2


def test_without_a_job_for_the_comparison_the_sweep_stands(slurm, workplace):
    slurm.refuse("sbatch: error: QOSMinGRES", only="--dependency")
    told = run("sweep", "tiny.yaml", *SIX).stderr
    assert "no job will do it at the end" in told and "QOSMinGRES" in told
    assert (workplace / "runs" / "tiny-sweep" / "job.json").exists()


@pytest.mark.parametrize(("values", "told"), [("1,,2", "missing between two commas"), ("1,2,1", "is there twice")])
def test_slips_in_the_values_are_told(slurm, values, told):
    assert told in run("sweep", "tiny.yaml", "--set", f"grpo.seed={values}", code=2).stderr


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("8", ["8"]),
        ("8, 16,32", ["8", "16", "32"]),
        ("[a, b],[c]", ["[a, b]", "[c]"]),
        ("{name: x, weight: 2},strict", ["{name: x, weight: 2}", "strict"]),
        ("'a, b',\"c, d\"", ["'a, b'", '"c, d"']),
        ("it's,that", ["it's", "that"]),
        ("['a]',b],c", ["['a]',b]", "c"]),
        ("", [""]),
    ],
)
def test_commas_in_brackets_and_quotes_do_not_part(text, parts):
    assert split_values(text) == parts


def test_a_sweep_is_cancelled_as_a_whole_and_a_run_of_it_alone(slurm, workplace):
    run("sweep", "tiny.yaml", *SIX)
    first = members(workplace / "runs" / "tiny-sweep")[0]
    assert run("cancel", str(first)).stdout == "41_0\n"
    assert run("cancel", "runs/tiny-sweep").stdout.split() == [f"41_{n}" for n in range(1, 6)]


def test_the_runs_of_a_sweep_are_compared(slurm, workplace):
    run("sweep", "tiny.yaml", "--set", "grpo.seed=1,2", "--set", "grpo.beta=0.1,0.2")
    sweep = workplace / "runs" / "tiny-sweep"
    for number, path in enumerate(members(sweep)):
        lines = [{"step": step, "reward": number + step, "perf/tokens_per_second": 10.0} for step in (1, 2)]
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = json.loads(run("report", "runs/tiny-sweep", "--json").stdout)
    assert [row["settings"] for row in rows] == [{"grpo.seed": s, "grpo.beta": b} for s in (1, 2) for b in (0.1, 0.2)]
    assert [row["reward"]["last"] for row in rows] == [2, 3, 4, 5]
    table = run("report", "runs/tiny-sweep").stdout
    page = (sweep / "report.html").read_text()
    assert table.splitlines()[-1] == "runs/tiny-sweep/report.html"
    assert "grpo.beta" in page and "http" not in page
    assert "grpo.seed" in table and "2/30" in table and "5 → 5" not in table
    assert json.loads(run("report", *map(str, members(sweep)[:2]), "--json").stdout)[1]["path"] == str(
        members(sweep)[1]
    )
