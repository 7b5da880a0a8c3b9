"""The stage behind `grpo-dist rewards`: the preflight alone, in a run directory that is thrown away."""

from __future__ import annotations

from grpo_dist.config.section import EMBEDDED
from grpo_dist.embedded.kept import build
from grpo_dist.embedded.model import build_untrained
from grpo_dist.progress import say_passing
from grpo_dist.training.preflight import try_rewards
from grpo_dist.training.preparation import data, dressed_tokenizer
from grpo_dist.training.stage import Run, main
from grpo_dist.training.world import check_device


def rewards(run: Run) -> None:
    """Leave `rewards_preflight.json`, whatever it finds; the model is only loaded when it is to write samples."""
    config, directory = run.config, run.directory
    samples = config.rewards.preflight_samples > 0
    if samples:
        check_device(run.plan)
    if config.model.name_or_path == EMBEDDED:
        build(directory.model, config.grpo.seed, say_passing) if samples else build_untrained(directory.model)
    tokenizer = dressed_tokenizer(run)
    try_rewards(run, tokenizer, data(run, tokenizer).train)


if __name__ == "__main__":
    main(rewards)
