"""The site in a real browser, read from disk: it fits, says nothing, and asks no other host for anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from documentation import ROOT

pytestmark = pytest.mark.heavy
PAGES = sorted(page.stem for page in (ROOT / "docs").glob("*.md"))
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
BROKEN = "[...document.images].filter(image => !image.naturalWidth).map(image => image.src)"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("site")
    build = (sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(path))
    subprocess.run(build, cwd=ROOT, check=True)
    return path


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_quiet_and_fits(browser, site: Path, name: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / f"{name}.html").as_uri())
    assert page.evaluate(OVERFLOW) <= 0
    assert page.evaluate(BROKEN) == []
    assert said == []
    assert [url for url in asked if not url.startswith((site.as_uri(), "data:"))] == []
    page.close()


def test_an_error_is_found_by_its_words(browser, site: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((site / "index.html").as_uri())
    page.fill("input[name=query]", "CUDA out of memory")
    page.wait_for_selector(".md-search-result__link[href*='troubleshooting.html']")
    page.close()
