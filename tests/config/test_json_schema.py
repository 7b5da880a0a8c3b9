"""The schema for editors says what the loader says."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from schema_check import accepts, by_hand

from grpo_dist.config import RunConfig, dump_config, load_config
from grpo_dist.config.json_schema import json_schema
from grpo_dist.config.load import read_source
from grpo_dist.config.messages import all_settings, section_at

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "grpo_dist" / "config" / "starters").glob("*.yaml")])
SCHEMA = json_schema()
VALID: dict[str, Any] = {"model": {"name_or_path": "m"}, "data": {"name_or_path": "d"}}
REQUIRED_BESIDE = {"warm_start": {"data": {"name_or_path": "w"}}}

VALUES = (
    *(None, True, False, -1, 0, 1, 2, 0.5, 1.5, "", "x", "auto", "none", "wandb", "all-linear", "1:00:00"),
    *([], [1], ["x"], ["wandb"], [{"name": "x"}], {}, {"name": "x"}, {"x": "y"}, {"name_or_path": "x"}),
)

SPELLINGS = [(("grpo", "liger_kernel_config"), {"x": "y"}), (("grpo", "trackio_static_space_id"), 0)]
"""Unusual spellings of a boolean: they load, and an editor underlines them."""


def with_setting(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A valid configuration but for one setting; a list on the way gets one entry."""
    tree: Any = copy.deepcopy(VALID)
    if path[0] == "warm_start" and len(path) > 1:
        tree |= copy.deepcopy(REQUIRED_BESIDE)
    root = tree
    for key, following in pairwise(path):
        if isinstance(key, str):
            tree = tree.setdefault(key, [{"name": "x"}] if isinstance(following, int) else {})
        else:
            tree = tree[key]
    if path[-2:] == ("scorer", "weight") or path[-2:] == ("scorer", "kwargs"):
        tree["name"] = "x"
    tree[path[-1]] = value
    return root


def loads(tree: dict[str, Any]) -> bool:
    """Whether each setting alone is right; rules between settings are not the schema's."""
    try:
        RunConfig.model_validate(tree)
    except ValidationError as invalid:
        return all(error["type"] == "conflict" for error in invalid.errors())
    return True


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configurations_are_accepted_as_written_and_as_resolved(path):
    assert accepts(SCHEMA, read_source(path).data)
    assert accepts(SCHEMA, yaml.safe_load(path.read_text())), "1e-5 is text to readers of YAML 1.1: write 1.0e-5"
    assert accepts(SCHEMA, yaml.safe_load(dump_config(load_config(path))))


def test_each_setting_takes_what_the_loader_takes():
    """Every setting with every value: the same verdict."""
    trees = [(path, value, with_setting(path, value)) for path in all_settings() for value in VALUES]
    differing = [(path, value) for path, value, tree in trees if by_hand(SCHEMA, SCHEMA, tree) != loads(tree)]
    assert differing == SPELLINGS


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"model": VALID["model"]},
        {**VALID, "grop": {}},
        {**VALID, "grpo": {"lr": 1}},
        {**VALID, "grpo": {"per_device_train_batch_size": 1}},
        {**VALID, "grpo": {"num_generations": 1}},
        {**VALID, "grpo": {"loss_type": "gpo"}},
        {**VALID, "grpo": {"adam_beta1": 1}},
        {**VALID, "cluster": {"time": "tomorrow"}},
        {**VALID, "rewards": {"functions": []}},
        {**VALID, "rewards": {"functions": [{"weight": 1}]}},
        {**VALID, "tracking": "wandbb"},
        [],
    ],
    ids=json.dumps,
)
def test_what_the_loader_refuses_is_refused(tree):
    assert not accepts(SCHEMA, tree)


@pytest.mark.parametrize(
    "stated",
    [
        {"rewards": {"functions": "notebook"}},
        {"rewards": {"functions": ["notebook", {"name": "strict", "weight": 0.5}]}},
        {"rewards": {"functions": {"name": "strict"}}},
        {"evaluation": {"scorer": "accuracy"}},
        {"tracking": "none"},
        {"tracking": None},
        {"tracking": ["wandb", "trackio"]},
        {"lora": None, "grpo": None, "warm_start": None},
        {"lora": {"target_modules": "all-linear"}},
        {"grpo": {"delta": 2, "generation_kwargs": {"anything": [1]}, "trackio_static_space_id": False}},
    ],
    ids=json.dumps,
)
def test_shorthands_are_accepted(stated):
    assert accepts(SCHEMA, {**VALID, **stated})


def test_every_setting_is_documented():
    silent = [
        f"{name}.{setting}"
        for name, section in SCHEMA["definitions"].items()
        for setting, schema in section["properties"].items()
        if not schema.get("description") and section_at((setting,)) is None
    ]
    assert silent == []
    undocumented = {setting for setting, schema in SCHEMA["properties"].items() if not schema.get("description")}
    assert all(SCHEMA["definitions"][SCHEMA["properties"][one]["$ref"].rpartition("/")[2]] for one in undocumented)


def test_an_inherited_setting_has_its_documentation():
    assert SCHEMA["definitions"]["DataSection"]["properties"]["revision"]["description"].startswith("Branch, tag")
