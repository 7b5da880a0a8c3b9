"""The prepare stage: everything the training processes read, made once by one process."""

from grpo_dist.training.backend import settle
from grpo_dist.training.stage import Run, main


def _prepare(run: Run) -> None:
    backend = settle(run)  # before anything imports what Unsloth rewrites

    from grpo_dist.training.preparation import prepare

    prepare(run, backend)


if __name__ == "__main__":
    main(_prepare)
