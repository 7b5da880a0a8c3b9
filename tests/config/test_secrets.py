"""Secrets in a configuration: hidden wherever they are shown, kept for its owner, passed through the environment."""

from __future__ import annotations

import stat

import pytest
import yaml
from click.testing import CliRunner

from grpo_dist.cli import main
from grpo_dist.config import load_config
from grpo_dist.errors import ConfigError, RunDirectoryError
from grpo_dist.export.card import Export, model_card
from grpo_dist.launch.open import create_or_resume
from grpo_dist.masking import MASK, from_environment, hidden, masked, plain_secrets
from grpo_dist.plan import plan_run
from grpo_dist.report.html import write_html
from grpo_dist.report.record import read_run
from grpo_dist.rewards.load import load_rewards
from grpo_dist.run.directory import RunDirectory

EMBEDDED = {"name_or_path": "embedded"}
CHECK = {"reader": "r", "tokens": 1, "mean_gap": 0.0, "max_gap": 0.0, "tolerance": 0.1, "base_gap": 0.0}
SECRETS = ("s3cr3t-word", "hf_" + "a" * 30, "pa55w0rd")


@pytest.fixture
def config(tmp_path):
    (tmp_path / "mine.py").write_text("def judge(prompts, completions, api_key, **_):\n    return [len(api_key)]\n")
    stated = {
        "model": {**EMBEDDED, "dtype": "float32", "model_init_kwargs": {"use_auth": SECRETS[1]}},
        "data": EMBEDDED,
        "grpo": {"prompts_per_step": 4, "num_generations": 4, "max_steps": 4},
        "cluster": {"gpus_per_node": 0},
        "rewards": {
            "functions": [
                {
                    "name": f"{tmp_path}/mine.py:judge",
                    "kwargs": {"api_key": SECRETS[0], "url": f"https://me:{SECRETS[2]}@judge.example/v1"},
                }
            ]
        },
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(stated))
    return tmp_path / "my.yaml"


@pytest.mark.parametrize(
    "name",
    ["api_key", "openai-api-key", "apiKey", "token", "hf_token", "PASSWORD", "client_secret", "aws_secret_access_key"],
)
def test_a_setting_with_the_name_of_a_secret_is_hidden(name):
    assert masked({"kwargs": {name: "x"}}) == {"kwargs": {name: MASK}}
    assert masked({name: {"inner": ["x", "y"]}}) == {name: {"inner": [MASK, MASK]}}


@pytest.mark.parametrize("name", ["eos_token", "pad_token", "think_token", "max_tokens_per_step", "key", "tokenizer"])
def test_settings_of_a_tokenizer_are_no_secrets(name):
    assert masked({name: "<|end|>", "max_tokens": 7}) == {name: "<|end|>", "max_tokens": 7}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sk-proj-" + "a1" * 12, MASK),
        ("AKIAABCDEFGHIJKLMNOP", MASK),
        ("ghp_" + "a" * 36, MASK),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", MASK),
        ("postgres://me:pw@host/db", f"postgres://me:{MASK}@host/db"),
        ("https://host/x?a=1&sig=abc%3D&b=2", f"https://host/x?a=1&sig={MASK}&b=2"),
        ("Authorization: Bearer abcdefgh12345", f"Authorization: Bearer {MASK}"),
        ("https://host:8000/v1", "https://host:8000/v1"),
        ("mine.py:judge", "mine.py:judge"),
        ("e83c5163316f89bfbde7d9ab23ca2e25604af290", "e83c5163316f89bfbde7d9ab23ca2e25604af290"),
    ],
)
def test_what_has_the_form_of_a_secret_is_hidden_in_any_text(text, told):
    assert hidden(text) == told


def test_a_run_shows_and_exports_no_secret_and_keeps_it_for_its_owner(config, tmp_path):
    loaded = load_config(config)
    plan, run = plan_run(loaded), RunDirectory(tmp_path / "run")
    create_or_resume(loaded, plan, run, resume_command="")
    assert stat.S_IMODE(run.config.stat().st_mode) == 0o600
    assert load_config(run.config) == loaded
    record = read_run(run.path)
    export = Export("run", "adapter", "float32", None, "embedded", (CHECK,), {})
    shown = [record.config_text, write_html(record).read_text(), model_card(record, export)]
    shown.append(CliRunner().invoke(main, ["config", "show", str(config)]).output)
    for text in shown:
        assert MASK in text
        assert [secret for secret in SECRETS if secret in text] == []
    assert sum("looks like a secret" in warning for warning in plan.warnings) == 3


def test_a_difference_or_a_mistake_tells_no_secret(config, tmp_path):
    loaded, run = load_config(config), RunDirectory(tmp_path / "run")
    create_or_resume(loaded, plan_run(loaded), run, resume_command="")
    other = load_config(config, [f"model.model_init_kwargs.token={SECRETS[0]}"])
    with pytest.raises(RunDirectoryError) as refused:
        create_or_resume(other, plan_run(other), run, resume_command="")
    with pytest.raises(ConfigError) as mistyped:
        load_config(config, [f"rewards.api_key={SECRETS[0]}", f"grpo.seed={SECRETS[1]}"])
    for error in (refused, mistyped):
        assert MASK in str(error.value)
        assert [secret for secret in SECRETS if secret in str(error.value)] == []


def test_the_environment_passes_a_secret_to_a_reward_alone(config, tmp_path, monkeypatch):
    loaded = load_config(config, ["rewards.functions.0.kwargs={api_key: env:JUDGE_KEY}", "model.model_init_kwargs={}"])
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="the environment has no JUDGE_KEY") as missing:
        load_rewards(loaded.rewards.functions)
    assert "export JUDGE_KEY=" in missing.value.hint
    monkeypatch.setenv("JUDGE_KEY", "four")
    [reward] = load_rewards(loaded.rewards.functions)
    assert "four" not in repr(reward)
    assert reward(["p"], ["c"]) == [4.0]
    assert list(plain_secrets(loaded.model_dump(mode="json"))) == []
    run = RunDirectory(tmp_path / "run")
    create_or_resume(loaded, plan_run(loaded), run, resume_command="")
    assert "env:JUDGE_KEY" in run.config.read_text()
    assert "env:JUDGE_KEY" in read_run(run.path).config_text
    assert stat.S_IMODE(run.config.stat().st_mode) & 0o077


def test_only_a_whole_value_names_the_environment(monkeypatch):
    monkeypatch.setenv("NAME", "x")
    stated = {"a": ["env:NAME", "env: NAME", "my env:NAME"], "b": 1}
    assert from_environment(stated, "kwargs") == {"a": ["x", "env: NAME", "my env:NAME"], "b": 1}
