"""A stage of debug runs: one optimizer step with the longest prompts and completions of full length."""

from grpo_dist.training.common.backend import select_backend
from grpo_dist.training.common.process import Run, main


def _try_longest(run: Run) -> None:
    select_backend(run)  # before any import of what Unsloth rewrites

    from grpo_dist.training.stages.full_step import try_longest

    try_longest(run)


if __name__ == "__main__":
    main(_try_longest)
