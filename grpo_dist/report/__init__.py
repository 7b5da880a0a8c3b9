"""Reports on a run directory: a table in the terminal, a JSON summary, one self-contained HTML page."""

from grpo_dist.report.html import render_html, write_html
from grpo_dist.report.record import RunRecord, read_run
from grpo_dist.report.summary import summary
from grpo_dist.report.terminal import print_summary

__all__ = ["RunRecord", "print_summary", "read_run", "render_html", "summary", "write_html"]
