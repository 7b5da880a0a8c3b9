from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from plans import planned

from grpo_dist.cli import main
from grpo_dist.config import load_config
from grpo_dist.plan import LaunchPlan
from grpo_dist.render import RENDERED, render_files
from grpo_dist.render.files import LINES_SHOWN, differences

ALL = {"config.yaml", "plan.json", "accelerate.yaml", "job.sh"}


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "my config.yaml"
    sections = {
        "model": {"name_or_path": "Qwen/Qwen3-4B-Base"},
        "data": {"name_or_path": "open-r1/DAPO-Math-17k-Processed"},
        "rewards": {"functions": ["strict"]},
        "grpo": {"prompts_per_step": 16, "num_generations": 8},
        "cluster": {"gpus_per_node": 8},
    }
    path.write_text(yaml.safe_dump(sections))
    return path


def render(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["render", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_what_is_written_is_a_run_directory_to_be(config, tmp_path):
    out = tmp_path / "deep" / "out"
    render(config, "--output", out)
    assert names(out) == ALL
    assert load_config(out / "config.yaml") == load_config(config)
    assert LaunchPlan.from_json((out / "plan.json").read_text()).to_json() == (out / "plan.json").read_text()
    assert "as rendered" in render(config, "--output", out, "--check").output
    assert "nothing to change" in render(config, "--output", out).output


def test_a_rendered_configuration_renders_to_itself(config, tmp_path):
    render(config, "--output", tmp_path / "a")
    render(tmp_path / "a" / "config.yaml", "--output", tmp_path / "b")
    for name in ALL:
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


def test_another_strategy_takes_its_files_along(config, tmp_path):
    out, zero = tmp_path / "out", ("--set", "distributed.strategy=zero2")
    render(config, "--output", out, *zero)
    assert names(out) == ALL | {"deepspeed.json"}
    assert f"removed {out / 'deepspeed.json'}" in render(config, "--output", out).output
    assert names(out) == ALL


def test_check_names_what_is_stale_missing_and_extra(config, tmp_path):
    out = tmp_path / "out"
    render(config, "--output", out)
    (out / "job.sh").unlink()
    (out / "deepspeed.json").write_text("{}")
    (out / "notes.txt").write_text("not rendered")
    stale = (out / "accelerate.yaml").read_text().replace("num_processes: 8", "num_processes: 7")
    (out / "accelerate.yaml").write_text(stale)
    told = render(config, "--output", out, "--set", "cluster.qos=high", "--check", code=1).output
    for expected in ("job.sh: missing", "deepspeed.json: extra", "accelerate.yaml: stale", "config.yaml: stale"):
        assert str(out / expected) in told
    assert "-num_processes: 7\n" in told
    assert "+num_processes: 8\n" in told
    assert f"grpo-dist render '{config}' --output {out} --set cluster.qos=high" in told
    assert "notes.txt" not in told
    assert names(out) == (ALL - {"job.sh"}) | {"deepspeed.json", "notes.txt"}, "check wrote something"


def test_check_of_a_directory_that_is_not_there(config, tmp_path):
    assert "plan.json: missing" in render(config, "--output", tmp_path / "no", "--check", code=1).output


def test_a_started_run_keeps_its_files(config, tmp_path):
    out = tmp_path / "out"
    render(config, "--output", out)
    (out / "logs").mkdir()
    before = {name: (out / name).read_bytes() for name in ALL}
    assert "--output" in render(config, "--output", out, "--set", "grpo.seed=1", code=2).output
    assert {name: (out / name).read_bytes() for name in ALL} == before
    render(config, "--output", out)


def test_a_place_that_cannot_be_written_is_an_error_to_read(config, tmp_path):
    (tmp_path / "file").write_text("")
    told = render(config, "--output", tmp_path / "file" / "out", code=2).output
    assert "cannot be written" in told


def test_a_plan_that_cannot_be_is_not_written(config, tmp_path):
    render(
        config,
        "--output",
        tmp_path / "out",
        "--set",
        "grpo.prompts_per_step=7",
        "--set",
        "grpo.num_generations=3",
        code=2,
    )
    assert not (tmp_path / "out").exists()


def test_a_script_for_any_run_is_written_alone(config, tmp_path):
    script = tmp_path / "slurm" / "any.sh"
    render(config, "--script", script)
    assert names(script.parent) == {"any.sh"}
    assert f"set -- '{config}'" in script.read_text()
    assert "as rendered" in render(config, "--script", script, "--check").output
    told = render(config, "--script", script, "--set", "cluster.qos=high", "--check", code=1).output
    assert "any.sh: stale" in told
    assert "--script" in told
    assert "either --output DIR or --script FILE" in render(config, code=2).output


def test_every_name_that_may_be_rendered_is_known():
    sharded, server = planned(strategy="zero3"), planned(nodes=2, rollout={"backend": "vllm", "mode": "server"})
    assert {*render_files(*sharded), *render_files(*server)} == set(RENDERED)


def test_a_long_difference_is_cut():
    [difference] = differences({"a": "\n".join("xyz" * 30)}, {"a": json.dumps(["other"] * 40, indent=1)})
    assert len(difference.lines) == LINES_SHOWN + 1
    assert difference.lines[-1].endswith("lines more")
