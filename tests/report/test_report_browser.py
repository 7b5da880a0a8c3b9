"""The page in a real browser, at the width of a desk and of a phone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic_runs as runs

from grpo_dist.report.html import write_html
from grpo_dist.report.record import read_run

pytestmark = pytest.mark.heavy
OPEN_ALL = "document.querySelectorAll('details').forEach(details => details.open = true)"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
VISIBLE = "[...document.querySelectorAll('.problem')].filter(row => row.offsetParent).length"
CUT = """[...document.querySelectorAll('svg text')].filter(text => {
  const box = text.getBoundingClientRect(), card = text.closest('.card').getBoundingClientRect()
  return box.width && (box.left < card.left || box.right > card.right || box.bottom > card.bottom)
}).map(text => text.textContent)"""


def whole(path: Path) -> Path:
    run = runs.make_run(path)
    runs.write_samples(run, list(range(1, 51)))
    return run


def hostile(path: Path) -> Path:
    run = runs.make_run(path.with_name("x" * 120), rewards=("r" * 90, runs.HOSTILE))
    texts = runs.HOSTILE + "W" * 400
    runs.write_json(run / "comparison.json", runs.comparison(random.Random(0), decorate=texts))
    runs.write_json(run / "environment.json", {"k" * 80: "v" * 300, "packages": {"p" * 90: "1" * 90}})
    runs.write_samples(run, [1, 50], decorate=texts)
    return run


def long(path: Path) -> Path:
    return runs.make_run(path, steps=10_000, compared=False)


def served(path: Path) -> Path:
    return runs.make_run(path, served=True)


def single(path: Path) -> Path:
    return runs.make_run(path, steps=1, compared=False)


def empty(path: Path) -> Path:
    run = runs.make_run(path, compared=False)
    (run / "metrics.jsonl").unlink()
    return run


@pytest.mark.parametrize("width", [1280, 768, 390])
@pytest.mark.parametrize("make", [whole, hostile, long, served, single, empty])
def test_the_page_is_quiet_and_fits(browser, tmp_path: Path, make: Callable[[Path], Path], width: int) -> None:
    address = write_html(read_run(make(tmp_path / "run"))).as_uri()
    page = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    assert page.evaluate(OVERFLOW) <= 0
    assert page.evaluate(CUT) == []
    page.evaluate(OPEN_ALL)
    assert page.evaluate(OVERFLOW) <= 0
    assert said == []
    assert [url for url in asked if url != address and not url.startswith("data:")] == []
    page.close()


def test_problems_are_filtered_without_a_script(browser, tmp_path: Path) -> None:
    run = whole(tmp_path / "run")
    record = read_run(run)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(write_html(record).as_uri())
    page.click("text=256 problems, one by one")
    assert page.evaluate(VISIBLE) == 256
    page.click("label[for=show-gained]")
    assert page.evaluate(VISIBLE) == record.comparison.gained
    page.click("label[for=show-lost]")
    assert page.evaluate(VISIBLE) == record.comparison.lost
    page.close()
