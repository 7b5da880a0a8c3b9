"""`python -m grpo_dist` is `grpo-dist`."""

from grpo_dist.cli import main

if __name__ == "__main__":
    main(prog_name="grpo-dist")
