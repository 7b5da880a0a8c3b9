"""A real vLLM server on CPU, started once for all tests that ask for it: that costs a minute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from grpo_dist.config import RunConfig
from grpo_dist.inference.server import ServerSettings, server_settings
from grpo_dist.inference.supervisor import NodeSettings, Supervisor, replicas_of_node
from grpo_dist.plan import LaunchPlan, plan_run

MAX_LORA_RANK = 32


@dataclass(frozen=True)
class Engine:
    """The server, and what a caller has to know of it."""

    url: str
    key: str
    settings: ServerSettings
    model_directory: Path
    registry: Path
    supervisor: Supervisor


def server_config(model: Path, **rollout: object) -> RunConfig:
    """One replica on CPU for the model in a directory, in float32."""
    return RunConfig.model_validate(
        {
            "model": {"name_or_path": str(model), "dtype": "float32", "max_length": 64},
            "data": {"name_or_path": "embedded", "max_prompt_length": 16},
            "lora": {"r": MAX_LORA_RANK},
            "grpo": {"prompts_per_step": 4, "num_generations": 4, "max_completion_length": 32, "seed": 11},
            "cluster": {"gpus_per_node": 0},
            "rollout": {"backend": "vllm", "mode": "server", "replicas": 1, **rollout},
        }
    )


def node_settings(config: RunConfig, plan: LaunchPlan, directory: Path) -> NodeSettings:
    return NodeSettings(
        topology=plan.topology,
        registry=directory / "replicas",
        logs=directory / "logs",
        host="127.0.0.1",
        timeouts=config.rollout.timeouts,
        max_restarts=config.rollout.max_restarts,
    )


@pytest.fixture(scope="session")
def engine_model(tmp_path_factory) -> Path:
    """The embedded model, trained just enough to write something of the right form."""
    from grpo_dist.embedded.base_cache import build

    path = tmp_path_factory.mktemp("served") / "model"
    build(path, 11, lambda _: None, _steps=60)
    return path


@pytest.fixture(scope="session")
def engine(engine_model, tmp_path_factory, missing) -> Iterator[Engine]:
    """One replica with adapters up to MAX_LORA_RANK; tests that ask for it are heavy."""
    if find_spec("vllm") is None:
        missing("vLLM is not installed")
    config = server_config(engine_model, max_staleness=1)
    plan = plan_run(config)
    settings = server_settings(config, plan, str(engine_model), str(engine_model))
    where = node_settings(config, plan, tmp_path_factory.mktemp("engine"))
    with Supervisor(settings, replicas_of_node(plan.topology, 0), where) as supervisor:
        (entry,) = supervisor.entries()
        yield Engine(entry.url, supervisor.key, settings, engine_model, where.registry, supervisor)
