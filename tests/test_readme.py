"""What the README shows is so."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from grpo_dist.config import load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_first_configuration_is_the_shipped_one():
    stated, shipped = blocks("yaml")[0], (ROOT / "configs" / "tiny-cpu.yaml").read_text()
    assert yaml.safe_load(stated) == yaml.safe_load(shipped)


def test_its_second_configuration_loads(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(blocks("yaml")[1])
    config = load_config(path)
    assert config.grpo.model_extra == {"epsilon_high": 0.28} or config.grpo.epsilon_high == 0.28


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link
