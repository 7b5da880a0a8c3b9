"""The `grpo-dist` program: one file per command, each read only when it is asked for."""

from __future__ import annotations

from importlib import import_module

import click

from grpo_dist import __version__
from grpo_dist.errors import GrpoDistError

COMMANDS = (
    *("advise", "init", "config", "plan", "scale", "render", "rewards", "filter", "doctor", "prefetch"),
    *("run", "checkpoint", "serve", "submit", "sweep", "status", "logs", "cancel"),
    *("report", "compare", "export"),
)
"""Each a module of this package that holds the command of that name."""
FUNCTIONS = {"filter": "filter_problems"}
"""Commands whose function is not called as they are."""


class Program(click.Group):
    """Reads a command's file when the command is asked for, and turns the errors a user is meant to read into their
    text and exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return getattr(import_module(f"{__name__}.{cmd_name}"), FUNCTIONS.get(cmd_name, cmd_name))

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
