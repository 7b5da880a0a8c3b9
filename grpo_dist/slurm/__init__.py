"""Slurm's own programs, typed: what they are asked, what they answer, and what their refusals mean here."""
