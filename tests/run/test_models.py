"""Which model a path means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpo_dist.errors import ModelError
from grpo_dist.run.checkpoints import base_of, checkpoints_of, disambiguate, find_model, seal


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run with checkpoints 2, 4 and 10, of which 4 was cut off."""
    path = tmp_path / "my run"
    for step in (2, 4, 10):
        checkpoint = path / "checkpoints" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "adapter_config.json").write_text("{}")
        seal(checkpoint)
    (path / "checkpoints" / "checkpoint-4" / "adapter_config.json").unlink()
    (path / "config.yaml").write_text("model: {}\n")
    (path / "adapter").mkdir()
    return path


def test_a_run_is_its_trained_adapter(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    found = find_model(Path("my run"))
    assert (found.kind, found.name) == ("run", "my run")
    assert (found.run, found.path) == (str(run), str(run / "adapter"))


def test_a_run_that_has_not_ended_names_its_newest_whole_checkpoint(run):
    (run / "adapter").rmdir()
    with pytest.raises(ModelError, match="training has not ended") as caught:
        find_model(run)
    assert str(run / "checkpoints" / "checkpoint-10") in caught.value.hint


def test_a_checkpoint_belongs_to_its_run(run):
    found = find_model(run / "checkpoints" / "checkpoint-2")
    assert (found.kind, found.name, found.run) == ("checkpoint", "my run/checkpoint-2", str(run))


@pytest.mark.parametrize(("step", "what"), [(4, "not a whole checkpoint"), (6, "there is no such checkpoint")])
def test_a_torn_checkpoint_is_refused_and_the_whole_ones_are_named(run, step, what):
    with pytest.raises(ModelError, match=what) as caught:
        find_model(run / "checkpoints" / f"checkpoint-{step}")
    assert "checkpoint-2, " in caught.value.hint
    assert "checkpoint-4" not in caught.value.hint


def test_the_way_of_a_training_is_its_whole_checkpoints_in_order(run):
    assert [source.name for source in checkpoints_of(run)] == ["my run/checkpoint-2", "my run/checkpoint-10"]
    with pytest.raises(ModelError, match="no run directory"):
        checkpoints_of(run.parent)


@pytest.mark.parametrize(("file", "kind"), [("adapter_config.json", "adapter"), ("config.json", "model")])
def test_an_export_knows_its_run_while_that_is_there(run, tmp_path, file, kind):
    place = tmp_path / "export"
    place.mkdir()
    (place / file).write_text("{}")
    assert (find_model(place).kind, find_model(place).run) == (kind, None)
    (place / "export.json").write_text(json.dumps({"run": str(run)}))
    assert find_model(place).run == str(run)
    (run / "config.yaml").unlink()
    assert find_model(place).run is None


def test_something_else_is_refused_with_what_is_near(run):
    with pytest.raises(ModelError, match="there is no such directory") as caught:
        find_model(run.parent / "my rum")
    assert str(run) in caught.value.hint
    with pytest.raises(ModelError, match="neither a run") as caught:
        find_model(run / "checkpoints")
    assert caught.value.hint == f"give the run directory: {run}"


def test_equal_names_become_paths_and_the_same_model_twice_is_refused(run, tmp_path):
    other = tmp_path / "elsewhere" / "my run"
    (other / "adapter").mkdir(parents=True)
    (other / "config.yaml").write_text("")
    named = disambiguate([base_of(run), find_model(run), find_model(other)])
    assert [source.name for source in named] == ["base", str(run / "adapter"), str(other / "adapter")]
    with pytest.raises(ModelError, match="named twice"):
        disambiguate([find_model(run), find_model(run / "." / ".")])
