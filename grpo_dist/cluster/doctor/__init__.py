"""Whether this machine, and what is installed on it, can run a configuration. One module for each group of findings."""

from grpo_dist.cluster.doctor.case import Case, case_of
from grpo_dist.cluster.doctor.examine import IN_A_JOB, examine

__all__ = ["IN_A_JOB", "Case", "case_of", "examine"]
