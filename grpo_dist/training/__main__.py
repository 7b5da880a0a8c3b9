"""The train stage; every process of the run executes this under `accelerate launch`."""

from grpo_dist.training.common.backend import select_backend
from grpo_dist.training.common.process import Run, import_lean, main


def train_stage(run: Run) -> None:
    """Train as the run is configured."""
    select_backend(run)  # before anything imports what Unsloth rewrites
    import_lean(run)  # takes seconds, like the imports below; the parent-death signal is set first

    from grpo_dist.training.stages.train import train

    train(run)


if __name__ == "__main__":
    main(train_stage)
