"""Templates of shell scripts: every value that enters one is quoted, but for what is shell code already."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Shell:
    """Text that is shell code already and goes into the script as it is."""

    code: str


def shell_script(template: str, **values: Any) -> str:
    """A file of templates/ with its holes filled in."""
    return _TEMPLATES.get_template(template).render(values)


def _hole(value: Any) -> str:
    """Quoted for the shell; sbatch reads the same quotes in its own lines."""
    return value.code if isinstance(value, Shell) else shlex.quote(str(value))


_TEMPLATES = Environment(
    loader=PackageLoader("grpo_dist.render"),
    undefined=StrictUndefined,
    finalize=_hole,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)
