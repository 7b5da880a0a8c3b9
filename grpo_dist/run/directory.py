"""The run directory, which holds the whole state of a run: the path of each file, its creation, its lock."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shlex
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from grpo_dist.errors import RunDirectoryError
from grpo_dist.masking import plain_secrets

CONFIG_FILE, PLAN_FILE, JOB_FILE = "config.yaml", "plan.json", "job.sh"
STARTED_FILE, DIGEST_FILE = "started.yaml", "started.sha256"
METRICS_FILE = "metrics.jsonl"
Read = TypeVar("Read")
LOCK_TRIES, LOCK_PAUSE_SECONDS = 4, 0.1
ATTEMPT_VARIABLE = "GRPO_DIST_ATTEMPT"
"""Environment variable with the log directory of the attempt a process belongs to."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run. Only the methods that say so read or create anything."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / CONFIG_FILE

    @property
    def started(self) -> Path:
        """The configuration the run is trained with. `config.yaml` must say the same."""
        return self.path / STARTED_FILE

    @property
    def started_digest(self) -> Path:
        """SHA-256 of `started.yaml`, as `sha256sum --check` reads it."""
        return self.path / DIGEST_FILE

    @property
    def plan(self) -> Path:
        return self.path / PLAN_FILE

    @property
    def prepared(self) -> Path:
        """Written last by the prepare stage: what was kept and dropped."""
        return self.path / "prepared.json"

    @property
    def train_data(self) -> Path:
        return self.path / "data" / "train.parquet"

    @property
    def heldout_data(self) -> Path:
        return self.path / "data" / "heldout.parquet"

    @property
    def warm_start_data(self) -> Path:
        """What the warm start was trained on: messages, texts, token ids and which of them count in the loss."""
        return self.path / "data" / "warm_start.parquet"

    @property
    def source_rows(self) -> Path:
        """Of a filter: the original rows of its problems."""
        return self.path / "data" / "source.parquet"

    @property
    def pass_rates(self) -> Path:
        """Of a filter: one line for each problem the model has answered."""
        return self.path / "pass_rates.jsonl"

    @property
    def sampled(self) -> Path:
        """Of a filter: written when the model has answered all problems."""
        return self.path / "sampled.json"

    @property
    def model(self) -> Path:
        """The embedded model; other models stay where they are."""
        return self.path / "model"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def warm_start(self) -> Path:
        """The adapter GRPO starts with, if not a new one: that of `model.adapter`, after the supervised warm start."""
        return self.path / "warm_start"

    @property
    def rewards_preflight(self) -> Path:
        """What the rewards returned for completions of known quality, before training."""
        return self.path / "rewards_preflight.json"

    @property
    def metrics(self) -> Path:
        return self.path / METRICS_FILE

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def replicas(self) -> Path:
        """The registry of rollout servers: one file each, and the key they require."""
        return self.path / "replicas"

    @property
    def policies(self) -> Path:
        """Adapters for the rollout servers to load; the newest is kept until the next one."""
        return self.path / "policies"

    @property
    def adapter(self) -> Path:
        """The trained adapter; it exists only once training has ended."""
        return self.path / "adapter"

    @property
    def finished(self) -> Path:
        """Results from before the run was extended: `step-N/` with adapter, comparison, report, metrics."""
        return self.path / "finished"

    @property
    def comparison(self) -> Path:
        return self.path / "comparison.json"

    @property
    def comparison_parts(self) -> Path:
        """Answers of each process; removed once the comparison is written."""
        return self.path / ".comparison"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def job(self) -> Path:
        """The Slurm job it was last submitted as."""
        return self.path / "job.json"

    @property
    def environment(self) -> Path:
        """What the run uses: packages, devices, and the chosen backend."""
        return self.path / "environment.json"

    @property
    def unsloth_cache(self) -> Path:
        """Where Unsloth writes the code it generates from TRL."""
        return self.path / "unsloth_compiled_cache"

    @property
    def debug(self) -> Path:
        """Of a debug run: what was changed, and its findings."""
        return self.path / "debug.json"

    @property
    def longest_batch(self) -> Path:
        """Of a debug run: the result of a step with the longest prompts and full completions."""
        return self.path / "longest_batch.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def heartbeat(self) -> Path:
        """The last finished step and its time; written by training."""
        return self.path / "heartbeat.json"

    @property
    def stop_request(self) -> Path:
        """Asks training to save at the next step and stop; the text says why."""
        return self.path / "stop-request"

    @property
    def failure(self) -> Path:
        """Why the last attempt failed; absent if it did not."""
        return self.path / "failure.json"

    def exists(self) -> bool:
        return self.config.is_file()

    def create(self, files: Mapping[str, str]) -> None:
        """Create the directory with these files (relative path → text), all of them or nothing.

        Raises:
            RunDirectoryError: the path exists already, or cannot be written.
        """
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}")
        try:
            draft.mkdir(parents=True)
            for name, text in files.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(draft / name, text, mode_of(name, text))
            # Fails unless the target is absent or an empty directory, so of two runs only one succeeds.
            os.rename(draft, self.path)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise RunDirectoryError(
                f"{self.path}: the run directory cannot be made ({error.strerror})",
                hint="choose another place with --output DIR",
            ) from error

    def attempts(self) -> list[Path]:
        """The log directories of all attempts, in their order."""
        found = (re.fullmatch(r"attempt-(\d+)", path.name) for path in self.logs.glob("attempt-*"))
        return [self.logs / f"attempt-{number}" for number in sorted(int(match[1]) for match in found if match)]

    def new_attempt(self) -> Path:
        """Create and return the log directory of the next attempt."""
        last = self.attempts()[-1:]
        attempt = self.logs / f"attempt-{int(last[0].name.rpartition('-')[2]) + 1 if last else 1}"
        try:
            attempt.mkdir(parents=True)
        except OSError as error:
            raise RunDirectoryError(
                f"{attempt}: cannot be made ({error.strerror})", hint=f"ls -ld {shlex.quote(str(self.logs))}"
            ) from error
        return attempt

    @contextmanager
    def locked(self, owner: str = "") -> Iterator[None]:
        """Lock the run; `owner` is shown to others.

        The kernel releases the lock when the process ends, so a killed run never blocks its own resume.

        Raises:
            RunDirectoryError: another process holds it.
        """
        with _lock_file(self.path / ".lock") as handle:
            if not _lock(handle):
                who = self.owner()
                raise RunDirectoryError(
                    f"{self.path}: this run is still going on{f' ({who})' if who else ''}",
                    hint="wait for it, or stop it first",
                )
            handle.truncate(0)
            handle.write(owner)
            handle.flush()
            yield

    def is_idle(self) -> bool:
        """Whether no process holds the lock."""
        return not is_locked(self.path / ".lock")

    def owner(self) -> str:
        """Who held the lock last."""
        try:
            return read_text(self.path / ".lock")
        except RunDirectoryError:
            return ""


def _lock_file(path: Path) -> IO[str]:
    try:
        return open(path, "a+")
    except OSError as error:
        raise RunDirectoryError(
            f"{path}: cannot be written ({error.strerror})", hint=f"ls -ld {shlex.quote(str(path.parent))}"
        ) from error


def try_lock(handle: IO[Any], kind: int) -> bool:
    """Take a lock of fcntl.LOCK_EX or LOCK_SH, without waiting. Returns whether nobody else has it.

    Raises:
        RunDirectoryError: the file system has no locks, as Lustre mounted without `-o flock`.
    """
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RunDirectoryError(
            f"{handle.name}: this file system has no file locks ({error.strerror}), which keep two jobs out of one run",
            hint="put runs on another one with --output DIR, or ask for it to be mounted with -o flock",
        ) from error
    return True


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock file. The check takes a shared lock for an instant; without locks nobody does."""
    try:
        with open(path, encoding="utf-8") as handle:
            return not try_lock(handle, fcntl.LOCK_SH)
    except (OSError, RunDirectoryError):
        return False


LONGEST_INTEGER = 18
"""Digits; more are no count of anything, and overflow wherever they are divided."""


def parse_json(text: str) -> Any:
    """JSON as it may stand in a file of a run; NaN, infinities and integers of absurd length become None.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(
            text,
            parse_constant=lambda _: None,
            parse_float=lambda digits: number if math.isfinite(number := float(digits)) else None,
            parse_int=lambda digits: int(digits) if len(digits) <= LONGEST_INTEGER else None,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, way_out: str = "") -> dict[str, Any]:
    """The object in a file of a run.

    Args:
        way_out: what to type if it is damaged; by default to continue the run without it.

    Raises:
        RunDirectoryError: it is missing, cannot be read, or is damaged.
    """
    text = read_text(path, way_out)
    try:
        found = parse_json(text)
    except ValueError as error:
        raise damaged(path, f"it is not JSON: {error}", way_out) from error
    if not isinstance(found, dict):
        raise damaged(path, f"it should hold an object, not {type(found).__name__}", way_out)
    return found


def read_text(path: Path, way_out: str = "") -> str:
    """The text of a file of a run; bytes that are not UTF-8 are replaced. A pipe would never end, nor would a device.

    Raises:
        RunDirectoryError: it is missing, no file, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise RunDirectoryError(f"{path}: no file", hint=way_out or f"ls -ld {shlex.quote(str(path))}")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunDirectoryError(
            f"{path}: cannot be read ({error.strerror})", hint=way_out or f"ls -l {shlex.quote(str(path))}"
        ) from error


def read_as(kind: type[Read], path: Path, way_out: str = "") -> Read:
    """The object in a file of a run, as this dataclass, whose fields it has.

    Raises:
        RunDirectoryError: it is missing, cannot be read, or is damaged.
    """
    return of_kind(kind, read_json(path, way_out), path, way_out)


def of_kind(kind: type[Read], fields: Any, path: Path, way_out: str = "") -> Read:
    """Fields that stand in a file, as this dataclass.

    Raises:
        RunDirectoryError: one is missing, unknown, or of another kind.
    """
    try:
        made = kind(**fields)
    except TypeError as error:
        raise damaged(path, f"other fields than those of {kind.__name__} ({error})", way_out) from error
    for name, expected in get_type_hints(kind).items():
        value = getattr(made, name)
        if not (value in get_args(expected) if get_origin(expected) is Literal else isinstance(value, expected)):
            raise damaged(path, f"{name} should not be {value!r:.40}", way_out)
    return made


def damaged(path: Path, what: str, way_out: str = "") -> RunDirectoryError:
    """The error for a file of a run that cannot be used."""
    there = shlex.quote(str(path))
    return RunDirectoryError(
        f"{path}: damaged, {what}", hint=way_out or f"move it away (mv {there} {there}.damaged) and continue without it"
    )


def mode_of(name: str, text: str) -> int:
    """The permissions of a rendered file, less the umask: only its owner reads a configuration that states a secret."""
    return 0o600 if name.endswith(".yaml") and any(plain_secrets(yaml.safe_load(text))) else 0o666


def _lock(handle: IO[str]) -> bool:
    """Lock the file, unless another process has it; one who looks whether it is locked holds it for an instant too."""
    for _ in range(LOCK_TRIES - 1):
        if try_lock(handle, fcntl.LOCK_EX):
            return True
        time.sleep(LOCK_PAUSE_SECONDS)
    return try_lock(handle, fcntl.LOCK_EX)


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a file so that readers, even after a crash, see either the old or the new text, never a part of it."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def give_access(path: Path) -> None:
    """Let those who may read a directory read all files in it: safetensors writes them for their owner alone."""
    mode = path.stat().st_mode & 0o666
    for file in path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN is refused."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
