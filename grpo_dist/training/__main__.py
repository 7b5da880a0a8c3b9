"""The train stage; every process of the run executes this under `accelerate launch`."""

from grpo_dist.training.common.backend import select_backend
from grpo_dist.training.common.imports import import_lean
from grpo_dist.training.common.process import Run, main


def train_stage(run: Run) -> None:
    """Train as the run says."""
    select_backend(run)  # before anything imports what Unsloth rewrites
    import_lean(run)  # takes seconds, as all below; the lifeline is tied before

    from grpo_dist.training.stages.train import train

    train(run)


if __name__ == "__main__":
    main(train_stage)
