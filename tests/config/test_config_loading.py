"""What is accepted, and what it becomes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from grpo_dist.config import RunConfig, config_differences, dump_config, load_config
from grpo_dist.config.grpo import GrpoSection
from grpo_dist.config.messages import EXAMPLES, all_settings, lookup, section_at
from grpo_dist.errors import ConfigError

GOOD = "model: {name_or_path: embedded}\ndata: {name_or_path: embedded}\n"
SHIPPED = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def inside_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def load(text: str = "", *overrides: str) -> RunConfig:
    Path("x.yaml").write_text(GOOD + text)
    return load_config("x.yaml", overrides)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configurations_load(path):
    assert load_config(path).model.name_or_path


def test_bytes_that_are_no_problem():
    Path("x.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode() + b"# \xe2\x82\xac\r\n")
    assert load_config("x.yaml") == load()


@pytest.mark.parametrize("written", ["1e-6", "1.0e-6", '"1e-6"', "1E-6", "0.000001", "0.1e-5", "+1.e-06", ".000001"])
def test_a_number_is_a_number_however_it_is_written(written):
    assert load(f"grpo: {{learning_rate: {written}}}").grpo.learning_rate == 1e-6
    assert load("", f"grpo.learning_rate={written}").grpo.learning_rate == 1e-6


@pytest.mark.parametrize(
    ("written", "number"), [("017", 17), ("0o17", 15), ("0x1F", 31), ("8.0", 8), ("'8'", 8), ("+8", 8), ("1e2", 100)]
)
def test_integers_by_yaml_1_2(written, number):
    assert load(f"grpo: {{prompts_per_step: {written}}}").grpo.prompts_per_step == number


@pytest.mark.parametrize("text", ["no", "on", "Yes", "1:30", "2024-01-01", "=", "0b1", "1_0x", "~x", "null_", "tRue"])
def test_text_that_yaml_1_1_takes_for_something_else(text):
    config = load(f"lora: {{target_modules: [{text}]}}")
    assert config.lora.target_modules == (text,)
    assert load("", f"lora.target_modules=[{text}]").lora.target_modules == (text,)


@pytest.mark.parametrize("word", ["true", "True", "yes", "on", "ON", '"true"'])
def test_words_for_true(word):
    config = load(f"grpo: {{mask_truncated_completions: {word}, disable_dropout: {word}, scale_rewards: {word}}}")
    assert config.grpo.mask_truncated_completions is True
    assert config.grpo.model_extra == {"disable_dropout": True}
    assert config.grpo.scale_rewards is True


@pytest.mark.parametrize("word", ["false", "FALSE", "no", "off", "Off"])
def test_words_for_false(word):
    assert load(f"grpo: {{gradient_checkpointing: {word}}}").grpo.gradient_checkpointing is False


@pytest.mark.parametrize("functions", ["notebook", "[notebook]", "{name: notebook}", "[{name: notebook, weight: 1}]"])
def test_shorthands_of_rewards(functions):
    assert load(f"rewards: {{functions: {functions}}}") == load()


def test_a_number_for_a_time_limit_is_one_of_minutes():
    assert load("cluster: {time: 90}").cluster.time == load("", "cluster.time=90").cluster.time == "90"


def test_shorthand_of_the_scorer():
    assert load("evaluation: {scorer: accuracy}") == load()


@pytest.mark.parametrize(
    ("written", "trackers"),
    [("none", ()), ("", ()), ("[]", ()), ("wandb", ("wandb",)), ("[wandb, trackio]", ("wandb", "trackio"))],
)
def test_tracking(written, trackers):
    assert load(f"tracking: {written}").tracking == trackers


def test_an_empty_section_is_its_defaults():
    assert load("lora:\ngrpo:\nwarm_start:\n") == load()


def test_aliases_are_written_out():
    config = load("lora: {r: &n 8, lora_alpha: *n}")
    assert (config.lora.r, config.lora.lora_alpha) == (8, 8)


def test_schema_defaults_are_legal():
    """Pydantic does not check defaults; here they are stated and so checked."""
    config = load()
    assert RunConfig.model_validate(config.model_dump()) == config


def test_every_required_setting_has_an_example():
    required = {
        ".".join(key for key in path if isinstance(key, str))
        for path in all_settings()
        if (section := section_at(path[:-1]))
        and path[-1] in section.model_fields
        and section.model_fields[path[-1]].is_required()
    }
    assert required == set(EXAMPLES)


def test_every_setting_is_found_by_its_path():
    assert all(lookup(path)[0] == path for path in all_settings())
    assert {path[1] for path in all_settings() if path[0] == "grpo" and len(path) > 1} > set(GrpoSection.model_fields)


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "path", "value"),
        [
            ("grpo.num_generations=16", ("grpo", "num_generations"), 16),
            (" grpo.seed = 3 ", ("grpo", "seed"), 3),
            ("tracking=[trackio]", ("tracking",), ("trackio",)),
            ("tracking=none", ("tracking",), ()),
            ("grpo.min_p=null", ("grpo", "min_p"), None),
            ("grpo.adam_beta1=0.8", ("grpo", "adam_beta1"), 0.8),
            ("grpo.lr_scheduler_kwargs={a: {b: 1}}", ("grpo", "lr_scheduler_kwargs"), {"a": {"b": 1}}),
            ("grpo.lr_scheduler_kwargs.a.b=1", ("grpo", "lr_scheduler_kwargs"), {"a": {"b": 1}}),
            ("data.system_prompt=You are: a *helper* #1", ("data", "system_prompt"), "You are: a *helper* #1"),
            ("data.system_prompt='1'", ("data", "system_prompt"), "1"),
            ("data.system_prompt=''", ("data", "system_prompt"), ""),
            ("data.split=train[:10%]=x", ("data", "split"), "train[:10%]=x"),
            ("lora.target_modules.0=x_proj", ("lora", "target_modules", 0), "x_proj"),
            ("rewards.functions.0.weight=2", ("rewards", "functions", 0, "weight"), 2.0),
            ("rewards.functions=strict", ("rewards", "functions", 0, "name"), "strict"),
            ("evaluation.scorer.kwargs.tolerance=0.1", ("evaluation", "scorer", "kwargs"), {"tolerance": 0.1}),
            ("warm_start={data: {name_or_path: x}}", ("warm_start", "data", "name_or_path"), "x"),
            ("warm_start.data.name_or_path=x", ("warm_start", "data", "name_or_path"), "x"),
        ],
    )
    def test_over_defaults(self, override, path, value):
        found = load("", override)
        for key in path:
            found = found[key] if isinstance(key, int) else getattr(found, key)
        assert found == value
        assert type(found) is type(value)

    def test_the_last_one_counts(self):
        assert load("grpo: {seed: 1}", "grpo.seed=2", "grpo.seed=3").grpo.seed == 3

    def test_a_group_replaces_the_group_of_the_file(self):
        config = load("lora: {r: 8, lora_alpha: 8}", "lora={r: 4}")
        assert (config.lora.r, config.lora.lora_alpha) == (4, 64)

    def test_other_settings_of_the_group_stay(self):
        config = load("lora: {r: 8, lora_alpha: 8}", "lora.r=4")
        assert (config.lora.r, config.lora.lora_alpha) == (4, 8)

    @pytest.mark.parametrize("functions", ["[notebook, strict]", "[{name: notebook}, {name: strict}]"])
    def test_into_a_list_of_the_file(self, functions):
        config = load(f"rewards: {{functions: {functions}}}", "rewards.functions.1.weight=0.5")
        assert [(one.name, one.weight) for one in config.rewards.functions] == [("notebook", 1.0), ("strict", 0.5)]

    def test_columns_one_by_one(self):
        Path("x.yaml").write_text("model: {name_or_path: m}\ndata: {name_or_path: d, columns: {prompt: q}}")
        config = load_config("x.yaml", ["data.columns.answer=a"])
        assert config.data.columns == {"prompt": "q", "answer": "a"}


class TestPaths:
    CONFIG = """
model: {name_or_path: MODEL}
data: {name_or_path: DATA, system_prompt: prompt.txt, chat_template: chat.jinja}
warm_start: {data: {name_or_path: more/*.jsonl}}
rewards: {functions: [notebook, "mine/rewards.py:length", "package.module:function"]}
evaluation: {scorer: "mine/rewards.py:exact"}
"""

    def config(self, model="my/model", data="my-data") -> RunConfig:
        Path("x.yaml").write_text(self.CONFIG.replace("MODEL", model).replace("DATA", data))
        return load_config("x.yaml")

    def test_relative_paths_become_absolute(self, tmp_path):
        (tmp_path / "my" / "model").mkdir(parents=True)
        (tmp_path / "my-data").mkdir()
        (tmp_path / "prompt.txt").touch()
        config = self.config()
        assert config.model.name_or_path == f"{tmp_path}/my/model"
        assert config.data.name_or_path == f"{tmp_path}/my-data"
        assert config.data.system_prompt == f"{tmp_path}/prompt.txt"
        assert config.data.chat_template == f"{tmp_path}/chat.jinja"
        assert config.warm_start.data.name_or_path == f"{tmp_path}/more/*.jsonl"
        assert [one.name for one in config.rewards.functions] == [
            "notebook", f"{tmp_path}/mine/rewards.py:length", "package.module:function"
        ]  # fmt: skip
        assert config.evaluation.scorer.name == f"{tmp_path}/mine/rewards.py:exact"

    def test_what_is_not_there_is_on_the_hub(self):
        config = self.config()
        assert (config.model.name_or_path, config.data.name_or_path) == ("my/model", "my-data")
        assert config.data.system_prompt == "prompt.txt"

    @pytest.mark.parametrize("name", ["./d", "../d", "d.jsonl", "d/*", "d.csv", "d.json.gz"])
    def test_names_that_can_only_be_local(self, name):
        assert Path(self.config(data=name).data.name_or_path).is_absolute()

    @pytest.mark.parametrize("name", ["embedded", "https://example.org/d.jsonl", "hf://datasets/a/d.csv", "/tmp/d"])
    def test_names_that_stay(self, name, tmp_path):
        (tmp_path / "embedded").mkdir()
        assert self.config(data=name).data.name_or_path == name

    def test_home(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/someone")
        assert self.config(model="~/m").model.name_or_path == "/home/someone/m"

    def test_a_dump_means_the_same_elsewhere(self, tmp_path, monkeypatch):
        config = self.config(model="./m", data="d.csv")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        Path("config.yaml").write_text(dump_config(config))
        assert load_config("config.yaml") == config


class TestDump:
    EVERYTHING = """
warm_start: {data: {name_or_path: embedded}}
grpo: {delta: 2, adam_beta1: .8, lr_scheduler_kwargs: {b: [1, null, true], a: {x: 1e-7}}, min_p: 0.1}
rewards: {functions: [{name: notebook, kwargs: {a: 'no', b: 0o17, c: '0o17', d: '1e5', e: "x\\ny\\n"}}, strict]}
tracking: [wandb]
"""

    def test_loads_back(self):
        config = load(self.EVERYTHING)
        Path("back.yaml").write_text(dump_config(config))
        assert load_config("back.yaml") == config
        assert dump_config(load_config("back.yaml")) == dump_config(config)

    def test_every_setting_is_written_out(self):
        import yaml

        written = yaml.safe_load(dump_config(load()))
        assert set(written) == set(RunConfig.model_fields)
        assert all(set(written[name]) == set(section_at((name,)).model_fields) for name in written if written[name])

    def test_order_of_statement_does_not_matter(self):
        assert dump_config(load("grpo: {delta: 2, adam_beta1: 0.8}")) == dump_config(
            load("grpo: {adam_beta1: 0.8, delta: 2}")
        )

    def test_readable(self):
        text = dump_config(load("", "data.system_prompt='Grüße\n\nzwei'"))
        assert "  system_prompt: |-\n    Grüße\n    zwei\n" in text
        assert "learning_rate: 5.0e-06" in text


class TestDifferences:
    def test_none(self):
        assert config_differences(load(), load("grpo: {seed: 3407}\nlora:\n")) == []

    def test_settings_that_differ(self):
        before = load("grpo: {adam_beta1: 0.8}")
        after = load("warm_start: {data: {name_or_path: embedded}}", "grpo.seed=1", "rewards.functions.0.weight=2")
        assert [one for one in config_differences(before, after) if one[0] != "warm_start"] == [
            (
                "rewards.functions",
                [{"name": "notebook", "weight": 1.0, "kwargs": {}}],
                [{"name": "notebook", "weight": 2.0, "kwargs": {}}],
            ),
            ("grpo.seed", 3407, 1),
            ("grpo.adam_beta1", 0.8, None),
        ]

    def test_a_section_that_is_not_there(self):
        [(name, before, after)] = config_differences(load(), load("warm_start: {data: {name_or_path: embedded}}"))
        assert (name, before, after["data"]["name_or_path"]) == ("warm_start", None, "embedded")

    def test_relative_and_absolute_paths_are_the_same(self, tmp_path):
        relative = RunConfig.model_validate({"model": {"name_or_path": "./m"}, "data": {"name_or_path": "embedded"}})
        absolute = RunConfig.model_validate(
            {"model": {"name_or_path": f"{tmp_path}/m"}, "data": {"name_or_path": "embedded"}}
        )
        assert config_differences(relative, absolute) == []


def test_loading_imports_nothing_heavy():
    Path("x.yaml").write_text(GOOD)
    program = (
        "import sys; from grpo_dist.config import *; dump_config(load_config('x.yaml', ['grpo.delta=2'])); "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(ran.stdout.split())
    assert {"pydantic", "yaml"} <= imported
    assert imported.isdisjoint(
        {"torch", "trl", "transformers", "peft", "accelerate", "datasets", "numpy", "jinja2", "rich"}
    )


def test_a_run_with_a_setting_since_removed_still_loads(tmp_path):
    text = "model: {name_or_path: m}\ndata: {name_or_path: d}\nevaluation: {bootstrap_samples: 5, batch_size: 3}\n"
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="was removed"):
        load_config(tmp_path / "config.yaml")
    (tmp_path / "plan.json").write_text("{}")
    assert load_config(tmp_path / "config.yaml").evaluation.batch_size == 3


def test_thousands_of_levels_or_problems_give_a_short_message(tmp_path):
    from grpo_dist.config import load_config
    from grpo_dist.errors import ConfigError

    (tmp_path / "x.yaml").write_text("model: {name_or_path: embedded}\ndata: {name_or_path: embedded}\n")
    with pytest.raises(ConfigError, match="5,000 names one below the other"):
        load_config(tmp_path / "x.yaml", [".".join(["a"] * 5000) + "=1"])
    with pytest.raises(ConfigError) as many:
        load_config(tmp_path / "x.yaml", [f"zz{number}=1" for number in range(40)])
    assert str(many.value).endswith("and 30 problems more")


def test_thousands_of_unknown_settings_are_refused_quickly(tmp_path):
    from grpo_dist.config import load_config
    from grpo_dist.errors import ConfigError

    path, began = tmp_path / "x.yaml", time.process_time()
    path.write_text("grpo:\n" + "".join(f"  k{number}: 1\n" for number in range(4000)))
    with pytest.raises(ConfigError, match="problems more"):
        load_config(path)
    assert time.process_time() - began < 5
