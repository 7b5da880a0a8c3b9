"""What a stranger reads beside the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from grpo_dist.export.card import Export, model_card
from grpo_dist.report.record import Comparison, RunRecord

CHECK = {
    "reader": "transformers",
    "tokens": 1234,
    "mean_gap": 0.0021,
    "max_gap": 0.5,
    "tolerance": 0.05,
    "base_gap": 0.3,
}
EXPORT = Export("our-run", "merged", "bfloat16", None, "Qwen/Qwen3-4B-Base", (CHECK,), {"trl": "1.16.0"})


def scores(greedy: float) -> dict:
    interval = {"estimate": greedy, "low": greedy - 0.05, "high": greedy + 0.05}
    return {"greedy_accuracy": interval, "mean_completion_length": 10.0, "clipped_ratio": 0.0}


COMPARISON = Comparison.from_json(
    {
        "problems": 200, "k": 0, "confidence": 0.95, "scorer": "accuracy", "base": scores(0.4), "trained": scores(0.7),
        "difference": {"estimate": 0.3, "low": 0.2, "high": 0.4}, "gained": 70, "lost": 10,
    }
)  # fmt: skip
RECORD = RunRecord(
    Path("/home/somebody/runs/our-run"),
    config={
        "model": {"name_or_path": "Qwen/Qwen3-4B-Base", "revision": None},
        "data": {"name_or_path": "/home/somebody/problems.jsonl"},
        "rewards": {"functions": [{"name": "/home/somebody/mine.py:brevity", "weight": 0.5}]},
        "cluster": {"account": "secret-project"},
    },
    environment={"packages": {"trl": "1.15.0"}},
    metrics=tuple({"step": step, "reward": float(step)} for step in range(1, 21)),
    comparison=COMPARISON,
)


def parts(card: str) -> tuple[dict, str]:
    _, front, text = card.split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_card_tells_recipe_metrics_check_and_versions():
    front, text = parts(model_card(RECORD, EXPORT))
    assert front["base_model"] == "Qwen/Qwen3-4B-Base"
    assert (front["base_model_relation"], front["library_name"]) == ("finetune", "transformers")
    for words in (
        "Reward 1.5 in the first tenth of 20 steps, 19.5 in the last",
        "| greedy accuracy | 40.0% (35.0% to 45.0%) | 70.0% (65.0% to 75.0%) |",
        "+30.0 percentage points (+20.0 to +40.0); 70 problems gained, 10 lost",
        "| transformers | 0.0021 | 0.5 | 0.05 | 0.3 |",
        "1,234 tokens",
        "cast to bfloat16",
        "Trained with trl 1.15.0; exported with trl 1.16.0.",
    ):
        assert words in text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe["rewards"] == {"functions": [{"name": "mine.py:brevity", "weight": 0.5}]}


def test_the_card_tells_nothing_of_where_it_was_made():
    card = model_card(RECORD, EXPORT)
    assert "somebody" not in card
    assert "secret-project" not in card
    assert "datasets" not in parts(card)[0]


def test_a_checkpoints_card_has_only_what_was_known_at_its_step():
    _, text = parts(model_card(RECORD, replace(EXPORT, step=10)))
    assert "as it was after step 10" in text
    assert "of 10 steps, 10 in the last" in text
    assert "have not been compared" in text


@pytest.mark.parametrize(
    ("form", "words"), [("adapter", "AutoPeftModelForCausalLM"), ("vllm", "vllm serve PATH-OR-REPOSITORY --dtype")]
)
def test_each_form_says_how_it_is_loaded(form, words):
    front, text = parts(model_card(replace(RECORD, metrics=(), comparison=None), replace(EXPORT, form=form)))
    assert words in text
    assert front["base_model_relation"] == ("adapter" if form == "adapter" else "finetune")


def test_the_card_says_how_prompts_were_rendered():
    said = "apply_chat_template(…, enable_thinking=False, style='short')"
    stated = replace(EXPORT, template_arguments={"enable_thinking": False, "style": "short"})
    assert said in model_card(RECORD, stated)
    assert "apply_chat_template" not in model_card(RECORD, EXPORT)
