"""GRPO reinforcement fine-tuning that goes from one GPU to a cluster without surprises."""

__version__ = "0.1.0"
