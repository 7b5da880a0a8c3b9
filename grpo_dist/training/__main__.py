"""`python -m grpo_dist.training STAGE RUN`: one stage of a run; `accelerate launch` runs it in every process.

Each function imports what it needs: imports take seconds, the parent-death signal is set before them, and Unsloth has
to be imported before what it rewrites.
"""

from grpo_dist.training.common.backend import select_backend
from grpo_dist.training.common.process import Run, import_lean, main


def _prepare(run: Run) -> None:
    backend = select_backend(run)

    from grpo_dist.training.stages.preparation import prepare

    prepare(run, backend)


def _train(run: Run) -> None:
    select_backend(run)
    import_lean(run)

    from grpo_dist.training.stages.train import train

    train(run)


def _compare(run: Run) -> None:
    from grpo_dist.training.stages.compare import compare_models

    compare_models(run)


def _prepare_filter(run: Run) -> None:
    backend = select_backend(run) if run.config.warm_start else None  # only a warm start trains here

    from grpo_dist.training.stages.filter_preparation import prepare

    prepare(run, backend)


def _sample_filter(run: Run) -> None:
    from grpo_dist.training.stages.filter_sample import sample

    sample(run)


def _try_rewards(run: Run) -> None:
    from grpo_dist.training.stages.rewards import rewards

    rewards(run)


def _make_small_model(run: Run) -> None:
    from grpo_dist.training.stages.small_model import make

    make(run)


def _try_longest_batch(run: Run) -> None:
    select_backend(run)
    import_lean(run)

    from grpo_dist.training.stages.longest_batch import try_longest

    try_longest(run)


STAGES = {
    "prepare": _prepare,
    "train": _train,
    "compare": _compare,
    "filter-prepare": _prepare_filter,
    "filter-sample": _sample_filter,
    "rewards": _try_rewards,
    "small-model": _make_small_model,
    "longest-batch": _try_longest_batch,
}


if __name__ == "__main__":
    main(STAGES)
