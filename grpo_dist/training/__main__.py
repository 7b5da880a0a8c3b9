"""The train stage; every process of the run executes this under `accelerate launch`."""

from grpo_dist.training.backend import settle
from grpo_dist.training.stage import Run, main


def train_stage(run: Run) -> None:
    """Train as the run says, with no more of vLLM imported than that needs."""
    settle(run)
    # Both take seconds; the lifeline is tied before.
    from trl import import_utils

    if run.plan.topology.mode != "colocate" and run.config.rollout.sync != "merged":
        # TRL imports all of vLLM where it is installed, and only an engine in this process needs it.
        import_utils.is_vllm_available = lambda **_: False

    from grpo_dist.training.train import train

    train(run)


if __name__ == "__main__":
    main(train_stage)
