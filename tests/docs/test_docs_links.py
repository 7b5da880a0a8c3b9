"""Where the documentation leads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from documentation import PAGES, ROOT, name, prose, spans

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
SHIPPED = re.compile(r"(?:configs|slurm|launch|benchmarks|requirements|docs)/[\w./-]+")


def anchors(page: Path) -> set[str]:
    """As GitHub and MkDocs make them of headings."""
    headings = HEADING.findall(prose(page.read_text(encoding="utf-8")))
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_links_are_found():
    found = [link for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))]
    assert {"docs/tour.md", "cluster.md#what-a-site-sets-once", "images/report-headline.png"} <= set(found)


def test_files_that_are_named_are_shipped():
    named = {span for page, span in spans() if SHIPPED.fullmatch(span)}
    assert {"configs/qwen3-4b.yaml", "slurm/grpo.sh"} <= named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_page_of_the_site_is_in_its_navigation():
    pages = [page for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"] for page in entry.values()]
    assert sorted(pages) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def test_pictures_are_light():
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert [picture.name for picture in pictures if picture.stat().st_size > 200_000] == []
