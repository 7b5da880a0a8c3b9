"""Which secrets are there. Their values are never read into a finding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grpo_dist.cluster.doctor.case import Case, hub_home
from grpo_dist.cluster.trackers import has_wandb_key
from grpo_dist.findings import Finding


def findings(case: Case) -> Iterator[Finding]:
    yield Finding("hub-token", "ok", _hub_token(case))
    if case.config and "wandb" in case.config.tracking:
        if has_wandb_key(case.environ):
            yield Finding("wandb-key", "ok", "there")
        else:
            what = "none: Weights & Biases will write into the run directory only"
            yield Finding("wandb-key", "warning", what, "wandb login, or: export WANDB_API_KEY=<your key>")


def _hub_token(case: Case) -> str:
    if case.environ.get("HF_TOKEN"):
        return "HF_TOKEN is set"
    file = Path(case.environ.get("HF_TOKEN_PATH") or hub_home(case.environ) / "token").expanduser()
    if file.is_file():
        return f"in {file}"
    return "none; public models and data need none (for others: export HF_TOKEN=<your token>)"
