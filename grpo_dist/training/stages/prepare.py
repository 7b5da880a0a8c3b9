"""The prepare stage: everything the training processes read, created once by one process."""

from grpo_dist.training.common.backend import select_backend
from grpo_dist.training.common.process import Run, main


def _prepare(run: Run) -> None:
    backend = select_backend(run)  # before any import of what Unsloth rewrites

    from grpo_dist.training.stages.preparation import prepare

    prepare(run, backend)


if __name__ == "__main__":
    main(_prepare)
