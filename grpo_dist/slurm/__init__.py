"""Slurm from both ends: submitting, watching and cancelling runs, and the steps of a job's batch script."""
