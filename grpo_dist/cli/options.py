"""Options and output that several commands share, and what they do when a signal stops them."""

from __future__ import annotations

import gc
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from grpo_dist.text import beneath, printable

if TYPE_CHECKING:
    from rich.console import Console

    from grpo_dist.plan import Measured


Read = TypeVar("Read")
WIDTH_OF_A_FILE = 140
"""Columns of output that does not go to a terminal."""

overrides_option = click.option(
    "--set", "overrides", metavar="A.B=V", multiple=True, help="Override one setting; may be repeated."
)
nodes_option = click.option("--nodes", type=click.IntRange(1), metavar="N", help="The same as --set cluster.nodes=N.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
calibrate_option = click.option(
    "--calibrate",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="RUN",
    help="Fit the time estimate to an earlier run's metrics.jsonl.",
)


class Numbers(click.ParamType):
    """Whole numbers, separated by commas."""

    name = "N,N,…"

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(dict.fromkeys(int(part) for part in value.split(",")))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers; write for example 1,2,4,8", param, ctx)
        wrong = [number for number in numbers if not self.least <= number <= self.most]
        if wrong:
            self.fail(f"{wrong[0]} is not between {self.least} and {self.most}", param, ctx)
        return numbers


class Commands(click.Group):
    """A group that suggests the command that may be meant."""

    elsewhere: Mapping[str, str] = {}
    """Names of other programs → ours."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            from grpo_dist.text import closest

            near = self.elsewhere.get(name.lower()) or closest(name, self.list_commands(ctx))
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {near!r}?" if near else ""))
        return super().resolve_command(ctx, args)


class Directory(click.Path):
    """A directory to write to. Runs are locked, renamed and synced, which only a file system can do."""

    def __init__(self, **how: Any) -> None:
        super().__init__(path_type=Path, **how)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(
                f"{value} is no directory of a file system; write to one, and copy the results there afterwards",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


def with_nodes(overrides: tuple[str, ...], nodes: int | None) -> tuple[str, ...]:
    """The overrides, followed by that of --nodes."""
    return overrides if nodes is None else (*overrides, f"cluster.nodes={nodes}")


def measured(calibrate: Path | None, mean_completion: int | None = None) -> Measured | None:
    """Measurements of the run given with --calibrate, or the length given with --mean-completion; None without both.

    Raises:
        PlanError: the run has no usable measurements.
    """
    if mean_completion is not None:
        if calibrate is not None:
            raise click.UsageError("--calibrate takes the run's own lengths; leave --mean-completion out")
        from grpo_dist.plan.inputs import stated_mean

        return stated_mean(mean_completion)
    if calibrate is None:
        return None
    from grpo_dist.plan.calibrate import measured_in

    return measured_in(calibrate)


mean_completion_option = click.option(
    "--mean-completion",
    type=click.IntRange(1),
    metavar="TOKENS",
    help="Mean length of completions, for the time; half of the longest otherwise, or what --calibrate finds.",
)


def start_quickly() -> None:
    """For a command that mostly imports. Pydantic searches no installed package for plugins, a tenth of the time of a
    plan, and does not import what would search, another twentieth. Garbage is collected a hundred times less often, a
    twentieth too."""
    if os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__") == "__all__":
        # In pydantic 2.14 importlib.metadata is imported here alone. If pydantic moves it, it is only slower.
        loader = ModuleType("pydantic.plugin._loader")
        loader.get_plugins = tuple
        sys.modules.setdefault(loader.__name__, loader)
    gc.set_threshold(70_000)


def at_a_terminal() -> bool:
    """Whether the user can be asked."""
    return sys.stdin.isatty()


def console(*, stderr: bool = False, wide: bool = True) -> Console:
    """A console for tables on standard output, or prose on standard error.

    Args:
        wide: if that is no terminal; else 80 columns, or COLUMNS.
    """
    from rich.console import Console
    from rich.segment import Segment

    class PrintableConsole(Console):
        """Writes out the control characters of texts; those of rich itself, as colours, come later."""

        def render(self, *args: Any, **kwargs: Any) -> Iterator[Segment]:
            for segment in super().render(*args, **kwargs):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    stream = beneath(sys.stderr if stderr else sys.stdout)
    width = WIDTH_OF_A_FILE if wide and not stream.isatty() else None
    return PrintableConsole(file=stream, width=width, highlight=False)


@contextmanager
def until_stopped() -> Iterator[None]:
    """Turn Interrupted into a message and, as shells do, into exit code 128 + the signal's number."""
    from grpo_dist.launch.process import Interrupted

    try:
        yield
    except Interrupted as stop:
        click.echo(f"stopped by {stop}; nothing was written", err=True)
        raise click.exceptions.Exit(128 + stop.signum) from stop


@contextmanager
def readable(run: Path) -> Iterator[None]:
    """Within, a value of a kind that no file of a run has is an error that names the run, not a traceback.

    Raises:
        ReportError: there is one.
    """
    from grpo_dist.errors import ReportError

    try:
        yield
    except OSError as error:
        raise ReportError(
            f"{error.filename or run}: cannot be read ({error.strerror})", hint=f"ls -la {shlex.quote(str(run))}"
        ) from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ReportError(
            f"{run}: damaged, a value in one of its files is of the wrong kind ({error})",
            hint="look into config.yaml, plan.json, environment.json and metrics.jsonl there; one that is moved away "
            "is left out",
        ) from error


def each_readable(read: Callable[[Path], Read], runs: Iterable[Path]) -> list[Read]:
    """What is read of each run; one that is damaged is named, and does not hide the others.

    Raises:
        ReportError, RunDirectoryError: no run can be read.
    """
    from grpo_dist.errors import ReportError, RunDirectoryError

    found, failed = [], []
    for run in runs:
        try:
            with readable(run):
                found.append(read(run))
        except (ReportError, RunDirectoryError) as error:
            failed.append(error)
    if failed and not found:
        raise failed[0]
    for error in failed:
        click.echo(f"warning: left out: {error}", err=True)
    return found
