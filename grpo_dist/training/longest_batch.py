"""A stage of debug runs: one optimizer step with the longest prompts and completions of full length."""

from grpo_dist.training.backend import settle
from grpo_dist.training.stage import Run, main


def _try_longest(run: Run) -> None:
    settle(run)  # before anything imports what Unsloth rewrites

    from grpo_dist.training.full_step import try_longest

    try_longest(run)


if __name__ == "__main__":
    main(_try_longest)
