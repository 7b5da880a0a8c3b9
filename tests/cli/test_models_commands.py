"""`compare` and `export` as far as they go before a process is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from grpo_dist.cli import main
from grpo_dist.cli.compare import data_settings
from grpo_dist.config import dump_config, load_config
from grpo_dist.export.push import made_from
from grpo_dist.plan import plan_run
from grpo_dist.render.files import render_files
from grpo_dist.run.directory import RunDirectory

CONFIG = """\
model: {name_or_path: %s, dtype: float32}
data: {name_or_path: embedded, config: null}
cluster: {gpus_per_node: 0}
"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    return make_run(tmp_path, monkeypatch)


def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str = "embedded") -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(CONFIG % model)
    config = load_config(tmp_path / "x.yaml")
    directory = RunDirectory(tmp_path / "run")
    directory.create(render_files(config, plan_run(config)))
    directory.adapter.mkdir()
    (directory.adapter / "adapter_model.safetensors").write_bytes(b"one")
    return directory.path


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """The requests that would have been worked on."""
    requests: list[dict] = []

    def stub(module, request, *, run, result, terminal):
        requests.append({"module": module, **request})
        if module.endswith("export"):
            result.mkdir(parents=True)
            record = made_from(Path(request["source"]["path"]), request["to"], request["dtype"])
            (result / "export.json").write_text(json.dumps(record))
        else:
            result.parent.mkdir(parents=True, exist_ok=True)
            result.write_text(json.dumps({"models": []}))

    monkeypatch.setattr("grpo_dist.launch.local.run_alongside", stub)
    return requests


def grpo_dist(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def test_two_models_are_compared_with_the_settings_of_their_run(run, asked):
    output = grpo_dist("compare", "base", "run", "--set", "evaluation.num_samples=2", "--json").output
    [request] = asked
    assert [(model["kind"], model["name"]) for model in request["models"]] == [("base", "base"), ("run", "run")]
    assert (request["run"], request["other_data"]) == (str(run), False)
    file = Path(json.loads(output)["file"])
    assert file == Path(request["result"])
    assert (file.parent, file.name.rpartition("-")[0]) == (run / "comparisons", "base-against-run")


def test_another_question_does_not_overwrite_the_answer_to_the_first(run, asked):
    for settings in ((), ("--data", "more.jsonl"), ()):
        grpo_dist("compare", "base", "run", *settings, "--json")
    first, other, again = (request["result"] for request in asked)
    assert first == again != other


def test_other_data_does_not_inherit_configuration_and_revision(run, asked):
    grpo_dist("compare", "base", "run", "--data", "my: data.jsonl", "--set", "data.columns={prompt: q}", "--json")
    [request] = asked
    data = load_config(run / "config.yaml", request["overrides"]).data
    assert request["other_data"]
    assert (data.name_or_path, data.columns) == (str(run.parent / "my: data.jsonl"), {"prompt": "q"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("base",), "base of which run?"),
        (("run",), "grpo-dist compare base run"),
        (("run", "--checkpoints"), "no whole checkpoint"),
        (("base", "run", "--set", "grpo.seed=1"), "a comparison takes settings of data and evaluation"),
        (("base", "run", "--set", "evaluation.num_sample=1"), "did you mean evaluation.num_samples?"),
        (("base", "run", "--set", "evaluation.scorer=acuracy"), "accuracy"),
        (("run", "run"), "name two different models"),
        (("base", "rum", "--run", "run"), "there is no such directory"),
    ],
)
def test_what_cannot_be_compared_is_told_before_anything_starts(run, asked, arguments, words):
    result = CliRunner().invoke(main, ("compare", *arguments))
    assert result.exit_code in (1, 2)
    assert words in result.output
    assert asked == []


def test_an_export_made_once_stands_and_another_does_not_replace_it(run, asked):
    made = run / "exports" / "merged"
    assert grpo_dist("export", "run", "--to", "merged").output == f"{made}\n"
    assert "as exported before" in grpo_dist("export", "run", "--to", "merged").output
    assert len(asked) == 1
    run = run.rename(run.with_name("moved"))
    assert "as exported before" in grpo_dist("export", "moved", "--to", "merged").output
    run = run.rename(run.with_name("run"))
    refused = grpo_dist("export", "run", "--to", "merged", "--dtype", "bfloat16", code=2)
    assert "--output DIR" in refused.output
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"two")
    grpo_dist("export", "run", "--to", "merged", code=2)
    grpo_dist("export", "run", "--to", "vllm", "--output", "there")
    assert (asked[1]["dtype"], asked[1]["output"]) == ("bfloat16", str(run.parent / "there"))


def test_a_draft_of_a_killed_export_is_removed_by_the_next(run, asked):
    left = run / "exports" / ".merged.draft-12345678"
    left.mkdir(parents=True)
    grpo_dist("export", "run", "--to", "merged")
    assert sorted(path.name for path in left.parent.iterdir()) == ["merged"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "adapter", "--dtype", "float32"), "an adapter keeps its own"),
        (("--to", "vllm", "--dtype", "float32"), "bfloat16 or float16"),
        (("--to", "adapter", "--push", "me/mine"), "push whole weights: --to merged"),
        (("--to", "gguf"), "'adapter', 'merged', 'vllm'"),
    ],
)
def test_what_cannot_be_exported_is_told_before_anything_starts(run, asked, arguments, words):
    result = CliRunner().invoke(main, ("export", "run", *arguments))
    assert result.exit_code in (1, 2)
    assert words in result.output
    assert asked == []


def test_without_a_token_nothing_is_made_to_be_pushed(tmp_path, monkeypatch, asked):
    make_run(tmp_path, monkeypatch, model="Qwen/Qwen3-4B-Base")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "HF_TOKEN" in grpo_dist("export", "run", "--to", "adapter", "--push", "me/mine", code=1).output
    assert asked == []


def test_a_push_goes_on_from_an_export_that_stands(tmp_path, monkeypatch, asked):
    run = make_run(tmp_path, monkeypatch, model="Qwen/Qwen3-4B-Base")
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    pushed = []
    monkeypatch.setattr("grpo_dist.export.push.push", lambda folder, name: pushed.append((folder, name)) or "address")
    for _ in range(2):
        output = grpo_dist("export", "run", "--to", "adapter", "--push", "me/mine").output
        assert output.splitlines()[-2:] == [str(run / "exports" / "adapter"), "address"]
    assert (len(asked), pushed) == (1, [(run / "exports" / "adapter", "me/mine")] * 2)


@pytest.mark.parametrize(
    ("data", "split", "columns", "extractor"),
    [
        ("HuggingFaceH4/MATH-500", "test", {"prompt": "problem"}, "none"),
        ("more.jsonl", "train", {"prompt": "question"}, "gsm8k"),
    ],
)
def test_other_data_that_is_known_brings_its_columns_and_its_answers(tmp_path, data, split, columns, extractor):
    path = tmp_path / "x.yaml"
    path.write_text("model: {name_or_path: m}\ndata: {name_or_path: openai/gsm8k}")
    path.write_text(dump_config(load_config(path)))
    section = load_config(path, data_settings(data)).data
    assert (section.config, section.split, section.eval_split) == (None, split, None)
    assert (section.columns, section.answer_extractor) == (columns, extractor)
