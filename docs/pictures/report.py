"""Takes the pictures of the demo's report: python docs/pictures/report.py

Needs Chromium. Runs the demo first, about two minutes, where `runs/tiny-cpu` does not hold its report yet; rewrites
docs/images/report-*.png.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent.parent
IMAGES, REPORT = ROOT / "docs" / "images", ROOT / "runs" / "tiny-cpu" / "report.html"
PARTS = {"headline": "section.headline", "comparison": "section#comparison", "reward": "section#reward"}
"""Picture → what of the page it shows."""
VIEWPORT = {"width": 960, "height": 900}


def main() -> None:
    if not REPORT.exists():
        demo = (sys.executable, "-m", "grpo_dist", "run", "configs/tiny-cpu.yaml", "--resume")
        subprocess.run(demo, cwd=ROOT, check=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=VIEWPORT, color_scheme="light")
        page.goto(REPORT.as_uri())
        for name, part in PARTS.items():
            box = page.locator(part).bounding_box()
            clip = box | {"x": 0, "width": VIEWPORT["width"]}
            page.screenshot(path=IMAGES / f"report-{name}.png", full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    main()
