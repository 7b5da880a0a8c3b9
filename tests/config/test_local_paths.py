"""What of a configuration lies on this machine's disks."""

from __future__ import annotations

from grpo_dist.config import RunConfig
from grpo_dist.config.local_paths import local_paths


def test_files_directories_and_the_places_of_patterns_are_named_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = RunConfig.model_validate(
        {
            "model": {"name_or_path": "./model"},
            "data": {"name_or_path": "my data/*/part-*.jsonl"},
            "rewards": {"functions": ["strict", "mine/a.py:one", "mine/b.py:two", "package.module:three"]},
            "evaluation": {"scorer": "/far/away.py:score"},
        }
    )
    assert local_paths(config) == [f"{tmp_path}/model", f"{tmp_path}/my data", f"{tmp_path}/mine", "/far"]


def test_what_lies_on_the_hub_is_not():
    hub = {"model": {"name_or_path": "Qwen/Qwen3-4B-Base"}, "data": {"name_or_path": "my/problems"}}
    assert local_paths(RunConfig.model_validate(hub)) == []
