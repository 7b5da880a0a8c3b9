"""`run --debug`: a cluster's configuration, all of it but its size, on this machine's CPU."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import yaml
from program import Program

from grpo_dist.embedded.model import character_tokenizer
from grpo_dist.embedded.problems import problems
from grpo_dist.plan.specs import architecture_of

pytestmark = pytest.mark.heavy


@pytest.fixture
def clustered(tmp_path) -> Program:
    """A run of 4 × 8 GPUs with servers and ZeRO-3, on a model of which all is here but the weights."""
    model = tmp_path / "large model"
    model.mkdir()
    tokenizer = character_tokenizer(4096)
    tokenizer.save_pretrained(model)
    shape = {**asdict(architecture_of("Qwen/Qwen3-4B")), "vocab_size": len(tokenizer), "head_dim": 32}
    (model / "config.json").write_text(json.dumps(shape))
    rows, _ = problems(7, 120, 8)
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stated = {
        "model": {"name_or_path": str(model)},
        "data": {
            "name_or_path": "sums.jsonl",
            "system_prompt": "none",
            "chat_template": "tokenizer",
            "max_prompt_length": 100,
        },
        "rewards": {"functions": ["check_numbers"]},
        "grpo": {"prompts_per_step": 96, "num_generations": 8, "max_completion_length": 2048, "max_steps": 500},
        "rollout": {"backend": "vllm", "mode": "server", "nodes": 1},
        "distributed": {"strategy": "zero3"},
        "cluster": {"nodes": 4, "gpus_per_node": 8},
        "tracking": ["tensorboard"],
    }
    config = tmp_path / "large.yaml"
    config.write_text(yaml.safe_dump(stated))
    return Program(tmp_path, config)


def test_a_cluster_s_configuration_is_tried_on_a_cpu(clustered):
    tried = clustered("run", str(clustered.config), "--debug", "--json")
    run = clustered.cwd / "runs" / "large-debug"
    told = json.loads(tried.stdout)
    assert told == json.loads((run / "debug.json").read_text())
    assert {"cluster.nodes", "distributed.strategy", "model.name_or_path"} <= {c["setting"] for c in told["changes"]}
    assert "cluster.nodes" in tried.stderr and "4 → 1" in tried.stderr
    assert "zero3 is not tried" in tried.stderr

    found = {finding["name"]: finding for finding in told["findings"]}
    assert {name for name, finding in found.items() if finding["status"] == "error"} == set()
    assert (found["truncation"]["status"], found["zero-variance"]["status"]) == ("warning", "warning")
    assert (found["loss"]["status"], found["longest-batch"]["status"]) == ("ok", "ok")
    assert all(finding["hint"] for finding in found.values() if finding["status"] != "ok")
    longest = json.loads((run / "longest_batch.json").read_text())
    assert (longest["completions"], longest["completion_tokens"]) == (8, 64)
    assert longest["peak_bytes"] is None
    assert [line["step"] for line in clustered.metrics("runs/large-debug")] == [1, 2, 3]
    assert {path.name for path in run.iterdir() if path.name.startswith(".longest")} == set()
    assert (run / "comparison.json").exists() and (run / "report.html").exists()
    assert not (clustered.cwd / "runs" / "large").exists()


def test_what_would_stop_the_run_is_an_error_and_a_real_run_is_left_alone(clustered):
    reward = "def flat(completions, answer, **columns):\n    return [1.0] * len(completions)\n"
    (clustered.cwd / "mine.py").write_text(reward)
    command = ("run", str(clustered.config), "--debug", "--set", "rewards.functions=[mine.py:flat]")
    told = clustered(*command, code=1).stdout
    assert told.startswith("on the cluster, as far as this machine can tell:\n")
    assert "error" in told
    assert "gold-like-wrong" in told
    assert "the prepare stage" not in told

    (clustered.cwd / "runs" / "large-debug" / "debug.json").unlink()
    refused = clustered(*command, code=2).stderr
    assert "there is a run already, and it is no debug run" in refused
    assert "--output DIR" in refused
