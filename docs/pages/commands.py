"""Every command with its arguments and options, from the program itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click
from writing import code, sentence, table

from grpo_dist.cli import main

INTRODUCTION = """# Commands

<!-- Written by `make docs` from the program's own commands; mend it there. -->

Which commands are there, and what do they take? `--help` after a command says the same. A `CONFIG` is a
[configuration](configuration.md), a `RUN` the directory of a run. Results go to standard output, everything else to
standard error. [Exit codes](troubleshooting.md#exit-codes) are the same for all commands.
"""
GROUPS = {
    "Before a run": (
        *("tasks", "init", "config", "plan", "scale", "render", "doctor", "prefetch", "rewards", "advise", "filter"),
    ),
    "A run": ("run", "submit", "sweep", "serve", "status", "logs", "checkpoint", "cancel"),
    "After a run": ("report", "compare", "export"),
}


def page() -> str:
    """The page."""
    context = click.Context(main, info_name="grpo-dist")
    parts = [INTRODUCTION]
    for heading, names in GROUPS.items():
        parts.append(f"## {heading}\n")
        parts += [section for name in names for section in _sections(main.get_command(context, name), name)]
    return "\n".join(parts)


def _sections(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for inner, one in command.commands.items():
            yield from _sections(one, f"{name} {inner}")
        return
    context = click.Context(command, info_name=f"grpo-dist {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    yield f"### {name}\n\n```text\n{' '.join(usage.split())}\n```\n\n{_text(command.help or '')}\n"
    options = [
        record for one in command.params if isinstance(one, click.Option) and (record := one.get_help_record(context))
    ]
    if options:
        yield table(("option", "meaning"), ((code(_name(names)), _cell(text)) for names, text in options)) + "\n"


def _name(names: str) -> str:
    return names.replace(", -", " or -")


def _cell(text: str) -> str:
    """The text of an option; what it is by default becomes a sentence."""
    told = re.sub(r"\s*\[[^\]]*[<>]=?[^\]]*\]", "", text.strip())
    return sentence(re.sub(r"\.?\s*\[default: (.*?)(?:; [^\]]*)?\]", lambda found: f"; default: {found[1]}", told))


def _text(help_text: str) -> str:
    """Help as Markdown: a block that click would not wrap is a block here too."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(help_text))
    return "\n\n".join(_paragraph(one) for one in paragraphs)


def _paragraph(text: str) -> str:
    if text.startswith("\b"):
        return "\n".join(f"    {line.strip()}" for line in text.lstrip("\b\n").splitlines())
    return re.sub(r"[*_<>]", lambda found: "\\" + found[0], text)
