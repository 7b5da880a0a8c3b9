"""The train stage; every process of the run executes this under `accelerate launch`."""

from grpo_dist.training.stage import Run, main


def _train(run: Run) -> None:
    from grpo_dist.training.train import train  # takes seconds; the lifeline is tied before

    train(run)


if __name__ == "__main__":
    main(_train)
