"""The first stage behind `grpo-dist filter`: the problems as the run would ask them, and the rows they come from."""

from grpo_dist.training.common.backend import select_backend
from grpo_dist.training.common.process import Run, main


def _prepare(run: Run) -> None:
    # A warm start is all that trains here. Before anything imports what Unsloth rewrites.
    backend = select_backend(run) if run.config.warm_start else None

    from grpo_dist.training.stages.filter_preparation import prepare

    prepare(run, backend)


if __name__ == "__main__":
    main(_prepare)
