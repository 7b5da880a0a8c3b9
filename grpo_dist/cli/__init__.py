"""The `grpo-dist` program: one file per command, each importing what it needs only when it runs."""

from __future__ import annotations

import click

from grpo_dist import __version__
from grpo_dist.cli.advise import advise
from grpo_dist.cli.cancel import cancel
from grpo_dist.cli.checkpoint import checkpoint
from grpo_dist.cli.compare import compare
from grpo_dist.cli.config import config
from grpo_dist.cli.doctor import doctor
from grpo_dist.cli.export import export
from grpo_dist.cli.filter import filter_problems
from grpo_dist.cli.init import init
from grpo_dist.cli.logs import logs
from grpo_dist.cli.plan import plan
from grpo_dist.cli.prefetch import prefetch
from grpo_dist.cli.render import render
from grpo_dist.cli.report import report
from grpo_dist.cli.rewards import rewards
from grpo_dist.cli.run import run
from grpo_dist.cli.scale import scale
from grpo_dist.cli.serve import serve
from grpo_dist.cli.status import status
from grpo_dist.cli.submit import submit
from grpo_dist.cli.sweep import sweep
from grpo_dist.errors import GrpoDistError


class Program(click.Group):
    """Turns the errors a user is meant to read into their text and exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except GrpoDistError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="grpo-dist")
def main() -> None:
    """GRPO reinforcement fine-tuning, from one GPU to a cluster.

    Start with: grpo-dist run configs/tiny-cpu.yaml
    """


for command in (
    *(advise, init, config, plan, scale, render, rewards, filter_problems, doctor, prefetch),
    *(run, checkpoint, serve, submit, sweep, status, logs, cancel),
    *(report, compare, export),
):
    main.add_command(command)
