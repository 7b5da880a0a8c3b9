"""Findings as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo_dist.findings import Finding

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def print_findings(found: Sequence[Finding], console: Console) -> None:
    """One row for each finding, with the hint below it."""
    table = Table.grid(padding=(0, 2))
    for finding in found:
        text = Text(finding.what)
        if finding.hint and finding.status != "ok":
            text.append(f"\n→ {finding.hint}", style="dim")
        table.add_row(Text(finding.status, style=STYLES[finding.status]), Text(finding.name, style="bold"), text)
    console.print(table)
