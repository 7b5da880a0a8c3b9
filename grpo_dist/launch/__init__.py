"""Runs on one machine: checks before the start, the stages as processes, the rollout servers, resuming."""
