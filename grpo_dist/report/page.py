"""The report as one HTML page that needs nothing else: no script, no font, no picture, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from grpo_dist.errors import ReportError
from grpo_dist.report import figures, lines, views
from grpo_dist.report.numbers import number, percent, points
from grpo_dist.report.record import RunRecord
from grpo_dist.report.samples import read_samples
from grpo_dist.report.series import smoothing_window
from grpo_dist.run_directory import write_atomically


def render_html(record: RunRecord) -> str:
    """The whole page. The same run directory gives the same bytes; completions are read from it here."""
    return _environment().get_template("report.html").render(**_holes(record))


def write_html(record: RunRecord) -> Path:
    """Write `report.html` into the run directory; a reader sees the old page or the new one, never a part.

    Raises:
        ReportError: the directory cannot be written.
    """
    path = record.path / "report.html"
    try:
        # A text from a model can hold half a surrogate pair, which UTF-8 cannot.
        write_atomically(path, render_html(record).encode("utf-8", "replace").decode("utf-8"))
    except OSError as error:
        raise ReportError(
            f"{path}: cannot be written ({error.strerror})", hint=f"make {record.path} writable, or copy the run"
        ) from error
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("grpo_dist.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, percent=percent, points=points)
    return environment


def _holes(record: RunRecord) -> dict[str, Any]:
    """What the template asks for."""
    environment, packages = views.environment(record)
    found = read_samples(record.path)
    return {
        "record": record,
        "state": views.STATES[record.state],
        "headline": views.headline(record),
        "facts": views.facts(record),
        **_comparison(record),
        **_training(record),
        "samples": views.samples(found),
        "no_samples": found.missing,
        "config": views.cut(record.config_text, views.CONFIG_SHOWN),
        "environment": environment,
        "packages": packages,
        "preparation": views.preparation(record),
    }


def _comparison(record: RunRecord) -> dict[str, Any]:
    found = record.comparison
    if not found:
        return {"comparison": None}
    return {
        "comparison": found,
        "comparison_figure": figures.comparison_figure(found),
        "gained": views.flips(found.gained_examples),
        "lost": views.flips(found.lost_examples),
        "problems": views.problem_rows(found),
        "outcomes": views.outcomes(found),
    }


def _training(record: RunRecord) -> dict[str, Any]:
    log = figures.Log(record.metrics, record.num_iterations)
    if not record.metrics:
        return {"figures": {}, "window": 1, "thinned": False}
    return {
        "figures": {
            "Reward": figures.reward_figures(log),
            "Completions": figures.completion_figures(log),
            "Speed": figures.speed_figures(log),
            "Optimisation": figures.optimisation_figures(log),
        },
        "window": smoothing_window(len(record.metrics)),
        "thinned": len(record.metrics) > lines.DOTS,
    }
