"""The `grpo-dist` program: the module of a command is imported only when it is used."""

from __future__ import annotations

import errno
import shlex
import signal
import sys
from importlib import import_module
from typing import Any

import click

from grpo_dist import __version__
from grpo_dist.cli.options import Commands
from grpo_dist.errors import GrpoDistError
from grpo_dist.masking import hidden
from grpo_dist.text import PrintableStream, beneath

COMMANDS = (
    *("advise", "tasks", "init", "config", "plan", "scale", "render", "rewards", "filter", "doctor", "prefetch"),
    *("run", "checkpoint", "serve", "submit", "sweep", "status", "logs", "cancel"),
    *("report", "compare", "export"),
)
"""Names of the commands."""
ELSEWHERE = {
    **dict.fromkeys(("train", "launch", "start", "resume", "fit", "grpo"), "run"),
    **dict.fromkeys(("new", "create", "setup"), "init"),
    **dict.fromkeys(("ps", "ls", "list", "queue"), "status"),
    **dict.fromkeys(("stop", "kill"), "cancel"),
    **dict.fromkeys(("eval", "evaluate", "test", "benchmark"), "compare"),
    **dict.fromkeys(("merge", "push", "upload", "save"), "export"),
    **dict.fromkeys(("download", "fetch", "cache"), "prefetch"),
    **dict.fromkeys(("validate", "check", "dry-run", "estimate"), "plan"),
    **dict.fromkeys(("log", "tail"), "logs"),
    **dict.fromkeys(("show", "schema"), "config"),
    "sbatch": "submit",
    "reward": "rewards",
}
"""Names of other programs → our command."""
FUNCTIONS = {"filter": "filter_problems"}
"""Commands whose function has another name."""
MODULES = dict.fromkeys(("checkpoint", "status", "logs", "cancel"), "running")
"""Commands whose module has another name."""


class CommandLine(Commands):
    """Imports a command's module when the command is used, and turns errors into their messages and exit codes."""

    elsewhere = ELSEWHERE

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"{__name__}.{MODULES.get(cmd_name, cmd_name)}")
        return getattr(module, FUNCTIONS.get(cmd_name, cmd_name))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # All that a command prints, a traceback too, may quote files that somebody else wrote.
        sys.stdout, sys.stderr = (PrintableStream(beneath(stream)) for stream in (sys.stdout, sys.stderr))
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except GrpoDistError as error:
            click.echo(f"Error: {hidden(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE or not error.filename:
                raise
            where = str(error.filename)
            click.echo(f"Error: {where}: {error.strerror}\n  → ls -ld {shlex.quote(where)}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="grpo-dist")
def main() -> None:
    """GRPO reinforcement fine-tuning, from one GPU to a cluster.

    Start with: grpo-dist run configs/tiny-cpu.yaml
    """
