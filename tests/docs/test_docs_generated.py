"""What is generated in docs/ is what the program says today; `make docs` writes it again."""

from __future__ import annotations

import runpy

import pytest
from documentation import ROOT

from grpo_dist.cli import COMMANDS
from grpo_dist.config.messages import all_settings
from grpo_dist.config.sections import Allowable
from grpo_dist.errors import GrpoDistError

DOCS = ROOT / "docs"


@pytest.fixture
def made(monkeypatch):
    """The page a script makes."""
    monkeypatch.syspath_prepend(DOCS / "pages")
    return lambda name: runpy.run_path(str(DOCS / "pages" / f"{name}.py"))["page"]()


@pytest.mark.parametrize("name", ["commands", "configuration", "troubleshooting"])
def test_the_page_is_that_of_the_program(made, name):
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == made(name), "stale: make docs"


def test_the_picture_is_that_of_the_layers():
    drawn = runpy.run_path(str(DOCS / "pictures" / "architecture.py"))
    assert (DOCS / "images" / "architecture.svg").read_text(encoding="utf-8") == drawn["svg"](), "stale: make docs"


def test_every_setting_is_in_the_reference(made):
    page = made("configuration")
    assert [path for path in all_settings() if f"`{path[-1]}`" not in page] == []


def test_every_command_and_its_options_are_in_the_reference(made):
    page = made("commands")
    for name in COMMANDS:
        assert f"### {name}" in page, name
    assert "| `--set A.B=V` | Override one setting; may be repeated. |" in page


def test_every_error_and_every_finding_is_explained(made):
    page = made("troubleshooting")
    kinds = [GrpoDistError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    named = {kind.__name__ for kind in kinds if kind.__module__ == "grpo_dist.errors"}
    assert [name for name in (*named, *Allowable.__args__) if f"`{name}`" not in page] == []


def test_every_known_cause_has_what_to_do(made):
    causes = made("troubleshooting").split("## A job fails")[1]
    rows = [line for line in causes.splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert [row for row in rows if row.endswith("|  |")] == []
