"""GRPO reinforcement fine-tuning, from one GPU to a Slurm cluster."""

__version__ = "0.1.0"
