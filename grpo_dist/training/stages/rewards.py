"""The stage of `grpo-dist rewards`: the preflight alone, in a temporary run directory."""

from __future__ import annotations

from grpo_dist.config.base import EMBEDDED
from grpo_dist.progress import say_passing
from grpo_dist.rewards.load import load_rewards
from grpo_dist.training.common.process import Run


def rewards(run: Run) -> None:
    """Write `rewards_preflight.json` whatever it finds; the model is loaded only if samples are requested."""
    load_rewards(run.config.rewards.functions)  # report what cannot be loaded before the slow imports

    from grpo_dist.training.common.world import check_device
    from grpo_dist.training.rewards.preflight import try_rewards
    from grpo_dist.training.stages.preparation import data, dressed_tokenizer

    samples = run.config.rewards.preflight_samples > 0
    if samples:
        check_device(run.plan)
    if run.config.model.name_or_path == EMBEDDED:
        _make_model(run, trained=samples)
    tokenizer = dressed_tokenizer(run)
    try_rewards(run, tokenizer, data(run, tokenizer).train)


def _make_model(run: Run, *, trained: bool) -> None:
    from grpo_dist.embedded.base_cache import build
    from grpo_dist.embedded.model import build_untrained

    if trained:
        build(run.directory.model, run.config.grpo.seed, say_passing)
    else:
        build_untrained(run.directory.model)
