"""Whatever the file says: a configuration, or a ConfigError of plain lines."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from grpo_dist.config import RunConfig, dump_config, load_config
from grpo_dist.config.messages import all_settings
from grpo_dist.errors import ConfigError

VALID = {
    "model": {"name_or_path": "embedded"},
    "lora": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
    "data": {"name_or_path": "d", "columns": {"prompt": "question"}},
    "rewards": {"functions": ["notebook", {"name": "strict", "weight": 0.5, "kwargs": {"a": [1]}}]},
    "warm_start": {"data": {"name_or_path": "e"}},
    "grpo": {"learning_rate": 1e-6, "delta": 2, "lr_scheduler_kwargs": {"x": None}},
    "evaluation": {"scorer": "accuracy"},
    "tracking": ["wandb"],
}

NAMES = st.sampled_from(sorted({str(key) for path in all_settings() for key in path}))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["1e-6", "no", "on", "nan", "embedded", "0o17", "1:30", "9" * 400, "~", "=", "a\0b", "<<"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
PATHS = st.sampled_from(all_settings())

fuzzed = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def inside_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def outcome(content: bytes, overrides: list[str] | None = None) -> RunConfig | None:
    """The configuration, None when it was refused; a configuration survives being written and read."""
    Path("x.yaml").write_bytes(content)
    try:
        config = load_config("x.yaml", overrides or [])
    except ConfigError as refused:
        lines = str(refused).split("\n")
        assert all(line.startswith(("x.yaml:", "--set ")) and line.isprintable() for line in lines)
        assert len(set(lines)) == len(lines)
        return None
    Path("back.yaml").write_text(dump_config(config))
    assert load_config("back.yaml") == config
    return config


@fuzzed
@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"%YAML 1.1\n---\na")
@example(b"? - a\n: !!set {}")
@example(b"\xc2\x85\xe2\x80\xa8a: 1")
@example(b'"\\ud800": 1')
def test_bytes(content):
    assert outcome(content) is None


YAML_CHARACTERS = st.text(alphabet="ab1:-?[]{},#&*!|>'\"%@` \n\t.~<=\\ue0", max_size=60)


@fuzzed
@given(YAML_CHARACTERS)
@example("a: !!float x")
@example("a: !<tag:yaml.org,2002:map> b")
@example("a: &a [*a]")
@example("{a, b: [c, {d}]}")
@example("- - - - a")
@example('"\\uD83D"')
def test_text_that_looks_like_yaml(text):
    outcome(text.encode())
    outcome(yaml.safe_dump(VALID).encode() + text.encode())


@fuzzed
@given(TREES)
def test_any_tree(tree):
    assert outcome(dumped(tree)) is None or isinstance(tree, dict)


@fuzzed
@given(PATHS, TREES)
def test_one_setting_is_anything(path, value):
    tree = copy.deepcopy(VALID)
    assign(tree, path, value)
    outcome(dumped(tree))


@fuzzed
@given(st.lists(st.tuples(PATHS, st.text(max_size=12) | TREES.map(repr)), max_size=3), st.booleans())
def test_overrides(assignments, valid):
    overrides = [f"{'.'.join(map(str, path))}={value}" for path, value in assignments]
    outcome(dumped(VALID if valid else {"model": None}), overrides)


@fuzzed
@given(st.lists(st.text(max_size=20), max_size=3))
@example(["grpo.seed=\ud800"])
@example(["rewards.functions.²=1"])
@example(["rewards.functions.99999999999999=1"])
def test_overrides_of_any_text(overrides):
    outcome(dumped(VALID), overrides)


@fuzzed
@given(st.text(max_size=30) | st.text(alphabet=" \n\t\x85\u2028:#-|>'\"a\\", max_size=20))
@example(" \n a\n")
@example("\n\n a")
@example("a \nb")
@example("0o17")
@example("1e5")
@example("---\n")
def test_any_text_survives_being_written(text):
    config = RunConfig.model_validate(VALID)
    section = config.model.model_copy(update={"model_init_kwargs": {"x": text}})
    config = config.model_copy(update={"model": section})
    Path("x.yaml").write_bytes(dump_config(config).encode("utf-8", "surrogatepass"))
    try:
        assert load_config("x.yaml").model.model_init_kwargs == {"x": text}
    except ConfigError:
        assert any(not character.isprintable() for character in text)


def dumped(tree: Any) -> bytes:
    """The tree as YAML, by PyYAML's own idea of it."""
    return yaml.dump(tree, Dumper=yaml.SafeDumper, allow_unicode=False).encode()


def assign(tree: Any, path: tuple[str | int, ...], value: Any) -> None:
    for key in path[:-1]:
        inside = tree.get(key) if isinstance(tree, dict) else None
        tree[key] = inside if isinstance(inside, dict) else {}
        tree = tree[key]
    tree[path[-1]] = value
