"""How every stage process starts, what it imports, and how it ends."""

from __future__ import annotations

import atexit
import faulthandler
import functools
import importlib.metadata
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.config import RunConfig, load_config
from grpo_dist.config.base import EMBEDDED
from grpo_dist.errors import GrpoDistError
from grpo_dist.launch.forks import has_engine_in_training
from grpo_dist.plan import LaunchPlan
from grpo_dist.plan.launch import read_plan
from grpo_dist.procs.tree import die_with_parent, survive_sigterm
from grpo_dist.progress import say_error
from grpo_dist.run.directory import RunDirectory

LEAVE_SECONDS = 60.0
"""Seconds for threads and exit handlers, including those of trackers, once the work of a stage is done."""


@dataclass(frozen=True)
class Run:
    """A run directory with its configuration and its plan."""

    directory: RunDirectory
    config: RunConfig
    plan: LaunchPlan


def open_run(path: Path, overrides: Sequence[str] = ()) -> Run:
    """The run in a directory, with settings of its configuration overridden (`a.b=v`)."""
    directory = RunDirectory(path)
    config = load_config(directory.config, overrides)
    return Run(directory, config, read_plan(directory))


def main(stages: Mapping[str, Callable[[Run], None]]) -> None:
    """Run the stage of the run directory that argv names; exit with one clear message on a known error."""
    _, stage, run = sys.argv
    as_process(lambda: stages[stage](_with_its_threads(open_run(Path(run)))))


def _with_its_threads(run: Run) -> Run:
    """One thread computes for the embedded model: a second one takes longer to wake up than it saves."""
    if run.config.model.name_or_path == EMBEDDED:
        import torch

        torch.set_num_threads(1)
    return run


def as_process(work: Callable[[], None]) -> None:
    """Do the work of this process, and exit with one clear message on a known error."""
    die_with_parent()
    survive_sigterm()
    # Not SIGUSR1, which NCCL may catch.
    faulthandler.register(signal.SIGUSR2)
    try:
        work()
        _leave_soon(0)
        atexit.register(
            _leave_at_once
        )  # exit handlers run in reverse order of registration, once all threads have ended
    except GrpoDistError as error:
        say_error(str(error), error.exit_code)
        _leave_soon(error.exit_code)
        sys.exit(error.exit_code)
    except Exception as error:  # a library's error: its message, and a traceback for the log
        traceback.print_exception(_without_advice(error))
        say_error(f"{type(error).__name__}: {_without_advice(error)}")
        _leave_soon(1)
        sys.exit(1)


def _without_advice(error: Exception) -> Exception:
    """PyTorch advises `weights_only=False` for a file it refuses, which would run whatever code is in the file."""
    if "weights_only" not in str(error):
        return error
    refused = type(error)("a file is damaged, or holds more than tensors: PyTorch does not load it")
    return refused.with_traceback(error.__traceback__)


def leave_to_others() -> None:
    """Undo `os._exit` at the end of this process: its caller ends it."""
    atexit.unregister(_leave_at_once)


def _leave_at_once() -> None:
    """Exit as Python does, without the second or two it spends tearing down every module of the stack."""
    atexit.unregister(_leave_at_once)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _leave_soon(code: int) -> None:
    """Threads left behind by a reward or a tracker may keep Python from exiting; exit anyway, and report it."""

    def leave() -> None:
        left = [thread.name for thread in threading.enumerate() if not thread.daemon and thread.is_alive()]
        print(f"still running after {LEAVE_SECONDS:.0f} s: {', '.join(left)}; ended with exit code {code}", flush=True)
        os._exit(code)

    timer = threading.Timer(LEAVE_SECONDS, leave)
    timer.daemon = True
    timer.start()


def import_lean(run: Run) -> None:
    """Before the first import of TRL or Transformers: they will not import vLLM or wandb if the run uses neither.

    It relies on Transformers 5.10 to 5.17 and TRL 1.15 to 1.16, which ask `is_…_available` while they are imported and
    import the whole of what is there. Where they ask elsewhere, this saves nothing and breaks nothing.

    Read in TRL 1.16, Transformers 5.17 and Accelerate 1.15. TRL's modules take `is_vllm_available` from
    `trl.import_utils`, and `is_wandb_available` from `transformers` and `accelerate.utils`, each when it is first
    imported.
    """
    # Transformers and TRL each read the metadata of all installed packages into a PACKAGE_DISTRIBUTION_MAPPING, half a
    # second of processor time.
    importlib.metadata.packages_distributions = functools.cache(importlib.metadata.packages_distributions)

    from accelerate import utils
    from transformers import integrations
    from trl import import_utils

    if not has_engine_in_training(run.plan, run.config):
        import_utils.is_vllm_available = lambda **_: False
    if "wandb" not in run.config.tracking:
        integrations.is_wandb_available = utils.is_wandb_available = lambda: False
