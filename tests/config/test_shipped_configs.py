"""The configurations people start from: they load, plan and render, and say of themselves what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grpo_dist.config import RunConfig, config_differences, load_config
from grpo_dist.plan import plan_run
from grpo_dist.plan.effective_sample import effective_share
from grpo_dist.plan.specs import architecture_of
from grpo_dist.render import render_files
from grpo_dist.rewards.names import check_reward_names

CONFIGS = Path(__file__).parents[2] / "configs"
STARTERS = Path(__file__).parents[2] / "grpo_dist" / "config" / "starters"
SHIPPED = sorted([*CONFIGS.glob("*.yaml"), *STARTERS.glob("*.yaml")])
RECIPE, NOTEBOOK = (CONFIGS / name for name in ("qwen3-4b.yaml", "qwen3-4b-notebook.yaml"))

each = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")


@pytest.fixture(autouse=True)
def inside_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_these_are_shipped():
    sizes = {"qwen3-4b", "qwen3-4b-notebook", "qwen3-4b-debug", "qwen3-8b", "qwen3-14b", "qwen3-32b"}
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*sizes, "tiny-cpu"}
    assert {path.name for path in STARTERS.iterdir()} == {"starter.yaml", "tiny-cpu.yaml"}


@each
def test_it_plans_and_renders_without_a_warning(path):
    config = load_config(path)
    plan = plan_run(config)
    assert plan.memory is not None
    assert plan.time is not None
    assert plan.topology.idle_gpus == 0
    assert plan.warnings == ()
    files = render_files(config, plan)
    assert files == render_files(config, plan)
    assert f"num_processes: {plan.batch.num_processes}\n" in files["accelerate.yaml"]


@each
def test_correction_keeps_the_sample_at_its_length(path):
    grpo = load_config(path).grpo
    mode, bound = grpo.vllm_importance_sampling_mode, grpo.vllm_importance_sampling_clip_max
    assert effective_share(0.06, grpo.max_completion_length, mode=mode, clip_max=bound) > 0.99


@each
def test_its_rewards_are_there(path):
    assert check_reward_names(load_config(path).rewards.functions) == []


@each
def test_the_overlong_punishment_ends_where_completions_are_cut(path):
    config = load_config(path)
    for function in config.rewards.functions:
        if function.name == "soft_overlong_punishment":
            assert function.kwargs["max_completion_length"] == config.grpo.max_completion_length


@each
def test_prompt_and_completion_fit_the_model(path):
    config = load_config(path)
    positions = architecture_of(config.model.name_or_path).max_position_embeddings
    assert (config.data.max_prompt_length or 1) + config.grpo.max_completion_length <= positions


def test_the_tiny_example_is_the_one_in_the_package():
    """An installed package has no configs/: after a change copy one over the other."""
    assert (STARTERS / "tiny-cpu.yaml").read_text() == (CONFIGS / "tiny-cpu.yaml").read_text()


def test_nothing_is_cut_from_what_the_cluster_recipes_sample():
    for path in CONFIGS.glob("qwen3-*b.yaml"):
        grpo = load_config(path).grpo
        assert (grpo.temperature, grpo.top_p, grpo.top_k, grpo.min_p) == (1.0, 1.0, 0, None)


def test_larger_siblings_differ_only_in_what_their_size_changes():
    changed = {
        "qwen3-8b": {"model.name_or_path", "cluster.nodes"},
        "qwen3-14b": {
            "model.name_or_path",
            "cluster.nodes",
            "rollout.enable_sleep_mode",
            "evaluation.batch_size",
        },
        "qwen3-32b": {
            "model.name_or_path",
            "cluster.nodes",
            "cluster.time",
            "rollout.mode",
            "distributed.strategy",
            "data.chat_template",
            "warm_start",
            "grpo.chat_template_kwargs",
        },
    }
    recipe = load_config(RECIPE)
    for name, settings in changed.items():
        differences = config_differences(recipe, load_config(CONFIGS / f"{name}.yaml"))
        assert {setting for setting, *_ in differences} == settings


class TestNotebook:
    """Each figure of the recipe, to the letter."""

    @pytest.fixture
    def notebook(self) -> RunConfig:
        return load_config(NOTEBOOK)

    def test_model_and_adapter(self, notebook):
        assert notebook.model.max_length == 2048
        assert (notebook.lora.r, notebook.lora.lora_alpha, notebook.grpo.seed) == (32, 64, 3407)
        trainable = architecture_of(notebook.model.name_or_path).lora_parameters(32, notebook.lora.target_modules)
        assert trainable == 66_060_288

    def test_data_and_lengths(self, notebook):
        assert notebook.data.max_prompt_length_quantile == 0.9
        assert (notebook.data.config, notebook.data.split, notebook.data.columns) == (
            "en",
            "train",
            {"answer": "solution"},
        )
        assert (notebook.data.system_prompt, notebook.data.chat_template) == ("recipe", "recipe")
        assert notebook.grpo.max_completion_length == 2048 - 202

    def test_warm_start(self, notebook):
        section = notebook.warm_start
        assert (section.num_train_epochs, section.learning_rate, section.warmup_steps) == (2, 2e-4, 5)
        assert (section.optim, section.weight_decay, section.max_length) == ("adamw_8bit", 0.001, 1024)
        assert (section.numeric_answers, section.data.split) == (True, "cot")
        assert section.data.columns == {
            "prompt": "problem",
            "reasoning": "generated_solution",
            "answer": "expected_answer",
        }

    def test_optimizer_and_sampling(self, notebook):
        grpo = notebook.grpo
        assert (grpo.learning_rate, grpo.weight_decay, grpo.warmup_steps) == (5e-6, 0.001, 0.1)
        assert (grpo.lr_scheduler_type, grpo.optim, grpo.max_steps) == ("linear", "adamw_8bit", 100)
        assert (grpo.temperature, grpo.min_p, grpo.top_p, grpo.top_k) == (1.0, 0.1, 1.0, 0)

    def test_a_step_is_one_prompt_with_four_completions_in_one_pass(self, notebook):
        batch = plan_run(notebook).batch
        assert (batch.prompts_per_step, batch.num_generations) == (1, 4)
        assert (batch.per_device_train_batch_size, batch.gradient_accumulation_steps) == (4, 1)

    @pytest.mark.heavy
    def test_stock_trl_refuses_its_batch_in_the_words_quoted(self):
        from trl import GRPOConfig

        words = "generation_batch_size (1) must be divisible by num_generations (4)"
        assert words in NOTEBOOK.read_text()
        with pytest.raises(ValueError, match=re.escape(words)):
            GRPOConfig(output_dir="unused", use_cpu=True, bf16=False, per_device_train_batch_size=1, num_generations=4,
                       gradient_accumulation_steps=1)  # fmt: skip
