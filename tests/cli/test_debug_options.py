"""What `run --debug` refuses before it looks at anything."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from grpo_dist.cli import main


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
