"""What `run --debug` says before it starts, and what it refuses before it looks at anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from grpo_dist.cli import main
from grpo_dist.cli.views import debug_lines
from grpo_dist.config import load_config
from grpo_dist.plan.debug import DebugMachine, scaled_down

SHIPPED = Path(__file__).parents[2] / "configs" / "qwen3-4b.yaml"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--debug", "--resume"), "leave out --resume"),
        (("--json",), "--json goes with --debug"),
    ],
)
def test_options_that_do_not_go_together(workplace, options, told):
    result = CliRunner().invoke(main, ["run", "tiny.yaml", *options])
    assert result.exit_code == 2
    assert told in result.stderr
    assert not (workplace / "runs").exists()


def test_a_real_run_is_never_replaced(workplace):
    run = workplace / "runs" / "tiny-debug"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("")
    result = CliRunner().invoke(main, ["run", "tiny.yaml", "--debug"])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert "it is no debug run" in result.stderr
    assert run.is_dir()


@pytest.mark.parametrize("width", [80, 120])
def test_every_change_is_told_under_its_reason_and_fits_the_terminal(width):
    made = scaled_down(load_config(SHIPPED), DebugMachine("NVIDIA A10", 22 * 2**30), "runs/qwen3-4b-debug/model")
    told = "\n".join(debug_lines(made, width)).splitlines()
    assert max(map(len, told)) <= width
    few = told.index("  a few are enough to go through everything")
    assert told[few + 1 : few + 3] == ["    grpo.max_steps         200 → 3", "    grpo.prompts_per_step  64 → 2"]
    assert f"    cluster.gpu_overrides.memory  null → {22 * 2**30}" in told
    assert all(any(line.strip().startswith(change.setting) for line in told) for change in made.changes)
