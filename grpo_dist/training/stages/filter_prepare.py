"""The first stage of `grpo-dist filter`: the problems as the run would prompt them, and the rows they come from."""

from grpo_dist.training.common.backend import select_backend
from grpo_dist.training.common.process import Run, main


def _prepare(run: Run) -> None:
    # Only a warm start trains here. Must come before any import of what Unsloth rewrites.
    backend = select_backend(run) if run.config.warm_start else None

    from grpo_dist.training.stages.filter_preparation import prepare

    prepare(run, backend)


if __name__ == "__main__":
    main(_prepare)
