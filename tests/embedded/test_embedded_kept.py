"""A base model is made once and copied after; what is copied is what would be made."""

from __future__ import annotations

import pytest
import torch

from grpo_dist.embedded import base_cache, model


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "grpo-dist" / "embedded"


def build(directory, seed: int = 5, steps: int = 2) -> list[str]:
    said: list[str] = []
    base_cache.build(directory, seed, said.append, _steps=steps)
    return said


def contents(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_second_model_is_a_copy_of_the_first_byte_for_byte(tmp_path):
    assert "step 2 of 2" in build(tmp_path / "first")[-1]
    assert "copied from" in build(tmp_path / "second")[-1]
    model.build(tmp_path / "made", 5, lambda _: None, _steps=2)
    assert contents(tmp_path / "second") == contents(tmp_path / "first") == contents(tmp_path / "made")


@pytest.mark.parametrize("differs", ["seed", "steps", "threads", "code"])
def test_another_recipe_is_another_model(tmp_path, monkeypatch, differs):
    build(tmp_path / "first")
    if differs == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    if differs == "code":
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "model.py").write_text("STEPS = 351")
        monkeypatch.setattr(model, "__file__", str(tmp_path / "code" / "model.py"))
    said = build(tmp_path / "second", 6 if differs == "seed" else 5, 1 if differs == "steps" else 2)
    assert "step" in said[-1]


def test_a_damaged_copy_is_made_again(tmp_path, cache):
    build(tmp_path / "first")
    (weights,) = cache.glob("*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "step 2 of 2" in build(tmp_path / "second")[-1]
    assert "copied from" in build(tmp_path / "third")[-1]
    assert contents(tmp_path / "third") == contents(tmp_path / "first")


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "step 2 of 2" in build(tmp_path / "first")[-1]


def test_an_existing_model_is_not_overwritten_by_a_copy(tmp_path):
    build(tmp_path / "first")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").write_text("mine")
    with pytest.raises(OSError):
        build(tmp_path / "mine")
    assert (tmp_path / "mine" / "mine.txt").read_text() == "mine"


def test_the_oldest_models_are_removed(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(base_cache, "KEPT_MODELS", 2)
    for seed in (1, 2, 3):
        build(tmp_path / str(seed), seed)
    assert len(list(cache.iterdir())) == 2
    assert "step" in build(tmp_path / "again", 1)[-1]
