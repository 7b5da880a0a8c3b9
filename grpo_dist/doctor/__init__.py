"""Checks whether this machine, with what is installed on it, can run a configuration; a module per group of checks."""

from grpo_dist.doctor.case import DoctorContext, doctor_context
from grpo_dist.doctor.examine import IN_A_JOB, examine

__all__ = ["IN_A_JOB", "DoctorContext", "doctor_context", "examine"]
