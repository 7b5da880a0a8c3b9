"""Every error a user is meant to read.

    GrpoDistError            exit 1   something failed while running
    ├── ConfigError          exit 2   the configuration is wrong
    │   └── PlanError        exit 2   each field is valid, but together they cannot run
    ├── RunDirectoryError    exit 2   the run directory is taken, missing or another run's
    ├── DataError            exit 1   the data set cannot be reached or used
    ├── ModelError           exit 1   the model or tokenizer cannot be loaded or used
    ├── RewardError          exit 1   a reward function cannot be loaded, failed, or returned an invalid value
    ├── TrainingDiverged     exit 1   loss, gradient or weights are no longer finite
    ├── LaunchError          exit 1   a process of the run failed or is not the one planned
    ├── RolloutError         exit 1   a rollout server cannot be started or refuses its work
    │   └── RolloutsGone     exit 75  all servers failed; the run is saved and can be resumed
    ├── SlurmError           exit 1   one of Slurm's programs is missing, does not answer, or refuses
    ├── ReportError          exit 1   a run directory does not hold what a report needs
    └── PushError            exit 1   the Hub refuses the upload

A message says what is wrong and where; `hint` says what to type next.
"""

from __future__ import annotations


class GrpoDistError(Exception):
    """Base of all errors with a message for the user; anything else that escapes is a bug."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


class ConfigError(GrpoDistError):
    exit_code = 2


class PlanError(ConfigError):
    pass


class RunDirectoryError(GrpoDistError):
    exit_code = 2


class DataError(GrpoDistError):
    pass


class ModelError(GrpoDistError):
    pass


class RewardError(GrpoDistError):
    pass


class TrainingDiverged(GrpoDistError):
    pass


OF_NO_USE = "is of no use"
"""In the hint of an error after which continuing would end in the same way."""


class LaunchError(GrpoDistError):
    pass


class RolloutError(GrpoDistError):
    pass


class RolloutsGone(RolloutError):
    exit_code = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed later


class SlurmError(GrpoDistError):
    pass


class ReportError(GrpoDistError):
    pass


class PushError(GrpoDistError):
    pass
